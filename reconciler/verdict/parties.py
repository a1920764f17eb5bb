"""Who a party stands for in a commit: its workloads, one as if it were there, a node, or what is outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from reconciler.compile.networks import CIDR_SOURCE
from reconciler.compile.selectors import IPBLOCK_SOURCE
from reconciler.model.cluster import Workload
from reconciler.model.facts import Facts
from reconciler.model.identity import Reserved
from reconciler.model.labels import LabelSet, workload_labels
from reconciler.model.policy_test import (
    ENTITIES,
    AddressParty,
    EntityParty,
    IdentityParty,
    LabelsParty,
    Party,
    WorkloadParty,
)
from reconciler.model.snapshot import Snapshot
from reconciler.source.addresses import multicast_fault
from reconciler.source.phrases import nearest
from reconciler.verdict.case import CaseError, IpAddress

_DEFAULT_NAMESPACE = "default"
_ADDRESS_LIKE = re.compile(r"[0-9.]+(/[0-9]+)?\Z|[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*(%\w*)?(/[0-9]+)?\Z")
_WORLDS = {4: Reserved.WORLD_IPV4, 6: Reserved.WORLD_IPV6}


@dataclass(frozen=True, slots=True)
class Known:
    """What a host knows besides the commit. `identities`: number -> labels, of those that only it has."""

    facts: Facts
    identities: Mapping[int, LabelSet] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OfWorkload:
    """`family` 4 or 6: only its address of that one; 0: both."""

    reference: str
    family: int = 0


@dataclass(frozen=True, slots=True)
class Imagined:
    """A workload that is not there."""

    namespace: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OfReserved:
    """`family` 4 or 6, 0 for both. `node`: it is that node's host, and of other nodes' workloads a remote node."""

    kind: Reserved
    family: int = 0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Outside:
    """An address that is neither a workload's nor a node's."""

    address: IpAddress


@dataclass(frozen=True, slots=True)
class Numbered:
    """An identity of a host for which no workload stands: that of a CIDR."""

    number: int
    labels: LabelSet


Found = OfWorkload | Imagined | OfReserved | Outside | Numbered


def parse_party(text: str) -> Party:
    """`shop/web`, `web`, `app=web,namespace=shop`, `10.0.0.1`, `world`, `257`. Raises CaseError."""
    plain = text.strip().removeprefix("reserved:")
    if not plain:
        raise CaseError("nobody is named: a workload, labels, an address, an identity or host or world is needed")
    if "=" in plain:
        return _labels_of_text(plain)
    if plain in ENTITIES:
        return EntityParty(plain)
    if plain.isascii() and plain.isdecimal():
        return IdentityParty(int(plain))
    address = _address(plain)
    if address is None:
        return WorkloadParty(plain)
    if fault := multicast_fault(address):
        raise CaseError(fault)
    return AddressParty(address)


def _labels_of_text(text: str) -> LabelsParty:
    pairs = [part.strip().partition("=") for part in text.split(",")]
    if any(not key or not equals for key, equals, _ in pairs):
        raise CaseError(f'"{text}" is not a list of labels: key=value,key=value')
    given = {key.removeprefix("k8s:").removeprefix("any:"): value for key, _, value in pairs}
    namespace = given.pop("namespace", "")
    return LabelsParty(namespace, tuple(sorted(given.items())))


def _address(text: str) -> IpAddress | None:
    for kind in (IPv4Address, IPv6Address):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def labels_of(snapshot: Snapshot, namespace: str, labels: Mapping[str, str]) -> LabelSet:
    """The identity labels of a workload in this namespace."""
    there = snapshot.namespaces.get(namespace)
    around, cluster = there.labels if there else {}, snapshot.cluster
    return workload_labels(namespace, labels, around, cluster.name, cluster.identity_labels)


class Directory:
    """A commit in which parties are looked up; `known` is None where no host is asked."""

    def __init__(self, snapshot: Snapshot, known: Known | None) -> None:
        self._snapshot = snapshot
        self._known = known
        self._owners: dict[IpAddress, Found] | None = None

    def find(self, party: Party) -> list[Found]:
        """At least one. Raises CaseError."""
        if isinstance(party, WorkloadParty):
            return [OfWorkload(self._reference(party.reference))]
        if isinstance(party, LabelsParty):
            return list(self._labelled(party)) or [Imagined(party.namespace or _DEFAULT_NAMESPACE, party.labels)]
        if isinstance(party, AddressParty):
            return [self._owner(party.address)]
        if isinstance(party, EntityParty):
            return _entity(party.name)
        return self._numbered(party.number)

    def _reference(self, name: str) -> str:
        workloads = self._snapshot.workloads
        if name in workloads:
            return name
        alike = [reference for reference in workloads if reference.partition("/")[2] == name]
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise CaseError(f'several workloads are called "{name}": {", ".join(sorted(alike))}')
        if _ADDRESS_LIKE.match(name):
            raise CaseError(f'"{name}" is neither an address nor a workload')
        full = name if "/" in name else f"{_DEFAULT_NAMESPACE}/{name}"
        raise CaseError(f'there is no workload "{name}"; {nearest(full, workloads)}')

    def _labelled(self, party: LabelsParty) -> Iterator[Found]:
        for reference, workload in self._snapshot.workloads.items():
            if party.namespace in ("", workload.namespace) and _has(workload, party.labels):
                yield OfWorkload(reference)

    def _owner(self, address: IpAddress) -> Found:
        if self._owners is None:
            self._owners = dict(self._addresses())
        return self._owners.get(address) or self._besides(address) or Outside(address)

    def _besides(self, address: IpAddress) -> Found | None:
        """This host, if the address is its own without being one of its links'."""
        facts = self._known.facts if self._known else None
        return _host(facts.node, address) if facts and any(address in one for one in facts.host_networks) else None

    def _addresses(self) -> Iterator[tuple[IpAddress, Found]]:
        """Later ones win: what was allocated over what the commit asks for."""
        if self._known is not None:
            facts = self._known.facts
            yield from ((address, _host(facts.node, address)) for address in facts.host_addresses)
        for node in self._snapshot.nodes.values():
            for address in (node.address4, node.address6):
                if address is not None:
                    yield address, _host(node.name, address)
        for reference in self._snapshot.workloads:
            for family, address in self.addresses(reference).items():
                yield address, OfWorkload(reference, family)

    def addresses(self, reference: str) -> dict[int, IpAddress]:
        """family -> the address that the workload has or asks for, as far as that is known."""
        endpoint = self._known.facts.endpoints.get(reference) if self._known else None
        given = endpoint or self._snapshot.workloads[reference]
        return {one.version: one for one in (given.address4, given.address6) if one is not None}

    def identity(self, reference: str) -> int:
        """As it was allocated, 0 if that is not known."""
        endpoint = self._known.facts.endpoints.get(reference) if self._known else None
        return endpoint.identity if endpoint else 0

    def _numbered(self, number: int) -> list[Found]:
        if number in set(Reserved) - {Reserved.UNKNOWN}:
            return [_reserved(Reserved(number))]
        if self._known is None:
            raise CaseError(f"what identity {number} is, only a host knows: name a workload, labels or an address")
        own = self._known.identities.get(number, frozenset())
        if any(label.source == CIDR_SOURCE for label in own):
            return [Numbered(number, own)]
        shared = frozenset(label for label in own if label.source != IPBLOCK_SOURCE)
        numbers = {number, *(one for one, labels in self._known.facts.identities.items() if own and labels == shared)}
        found: list[Found] = [
            OfWorkload(reference) for reference in self._snapshot.workloads if self.identity(reference) in numbers
        ]
        if not found:
            raise CaseError(f"no workload here has identity {number}", remedy="plumb identity list")
        return found


def _has(workload: Workload, labels: tuple[tuple[str, str], ...]) -> bool:
    return all(workload.labels.get(key) == value for key, value in labels)


def _host(node: str, address: IpAddress) -> OfReserved:
    return OfReserved(Reserved.HOST, address.version, node)


def _entity(name: str) -> list[Found]:
    if name == "world":
        return [_reserved(kind) for kind in _WORLDS.values()]
    return [_reserved(Reserved[name.upper().replace("-", "_")])]


def _reserved(kind: Reserved) -> OfReserved:
    return OfReserved(kind, next((family for family, world in _WORLDS.items() if world is kind), 0))
