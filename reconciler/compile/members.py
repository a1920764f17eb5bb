"""Identities of workloads, refined where a label set's members differ in what rules ask for and labels do not tell.

Two such things: whether an address lies inside an ipBlock that matches workloads, and which number a named port has.
Where members of a label set differ, each group of alike members gets an identity of this host, with the labels of the
shared one, so that selectors treat it as before and ipBlocks and named ports are exact. Where all members are alike,
the shared identity serves. A refined number is drawn from the shared identity and what marks the group, so it keeps
its meaning when other groups come and go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.compile.networks import CIDR_NUMBERS, IpAddress, IpNetwork
from reconciler.compile.numbering import number
from reconciler.compile.selectors import IPBLOCK_SOURCE
from reconciler.errors import CompileError
from reconciler.model.cluster import NamedPort, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_LOCAL
from reconciler.model.labels import Label, LabelSet

PortName = tuple[str, int]  # name, protocol
REFINED_NUMBERS = 1 << 23
FIRST_REFINED = FIRST_LOCAL + CIDR_NUMBERS


class Member(NamedTuple):
    """One address of one workload; `key` is the workload's in the snapshot."""

    key: str
    address: IpAddress
    identity: int
    workload: Workload
    local: bool


@dataclass(frozen=True, slots=True)
class Members:
    """labels   identity -> labels, where they differ from those in the facts, and of refined identities
    ports    identity -> its named ports, of identities that have some that rules ask for
    """

    members: tuple[Member, ...]
    labels: Mapping[int, LabelSet] = field(default_factory=dict)
    ports: Mapping[int, frozenset[NamedPort]] = field(default_factory=dict)


class _Marks(NamedTuple):
    """What tells the members of a label set apart."""

    blocks: frozenset[IpNetwork]
    ports: frozenset[NamedPort]

    def text(self) -> str:
        ports = sorted(f"{port.name}/{port.protocol}={port.port}" for port in self.ports)
        return ",".join(sorted(map(str, self.blocks)) + ports)


def members(
    workloads: Mapping[str, Workload], facts: Facts, blocks: frozenset[IpNetwork], names: frozenset[PortName]
) -> Members:
    """Every address of the cluster's workloads. `blocks`: CIDRs that match workloads, `names`: the ports asked for.

    O(workloads). Raises CompileError if two workloads have one address, or an identity has no labels.
    """
    found = list(_members(workloads, facts))
    _refuse_shared_addresses(found)
    if not blocks and not names:
        return Members(tuple(found))
    by_length = _by_length(blocks)
    marks = [_marks(member, by_length, names) for member in found]
    groups: defaultdict[int, set[_Marks]] = defaultdict(set)
    for member, own in zip(found, marks, strict=True):
        groups[member.identity].add(own)
    split = {(shared, own): f"{shared} {own.text()}" for shared, kinds in groups.items() for own in kinds}
    drawn = number((text for (shared, _), text in split.items() if len(groups[shared]) > 1), REFINED_NUMBERS)
    numbers = {key: FIRST_REFINED + drawn[text] if text in drawn else key[0] for key, text in split.items()}
    refined = [
        member._replace(identity=numbers[member.identity, own]) for member, own in zip(found, marks, strict=True)
    ]
    labels = {numbers[shared, own]: facts.identities[shared] | _labels(own) for shared, own in numbers}
    ports = {refined_to: own.ports for (_, own), refined_to in numbers.items() if own.ports}
    return Members(tuple(refined), labels, ports)


def _members(workloads: Mapping[str, Workload], facts: Facts) -> Iterable[Member]:
    endpoints = facts.endpoints
    for key, workload in workloads.items():
        endpoint = endpoints.get(key)
        if endpoint is None:
            continue
        if endpoint.identity not in facts.identities:
            raise CompileError(f"{workload.origin}: identity {endpoint.identity} of {workload.reference} has no labels")
        local = workload.node == facts.node
        for address in addresses(endpoint):
            yield Member(key, address, endpoint.identity, workload, local)


def addresses(endpoint: Endpoint) -> list[IpAddress]:
    return [address for address in (endpoint.address4, endpoint.address6) if address is not None]


def _refuse_shared_addresses(found: Iterable[Member]) -> None:
    owners: dict[tuple[int, int], Workload] = {}
    for _, address, _, workload, _ in found:
        other = owners.setdefault((address.version, int(address)), workload)
        if other is not workload:
            raise CompileError(
                f"{workload.origin}: {address} is the address of {other.reference} and of {workload.reference}"
            )


_ByLength = Mapping[tuple[int, int], Mapping[int, IpNetwork]]  # (version, host bits) -> bits of the network -> network


def _by_length(networks: Iterable[IpNetwork]) -> _ByLength:
    found: defaultdict[tuple[int, int], dict[int, IpNetwork]] = defaultdict(dict)
    for network in networks:
        host_bits = network.max_prefixlen - network.prefixlen
        found[network.version, host_bits][int(network.network_address) >> host_bits] = network
    return found


def _marks(member: Member, blocks: _ByLength, names: frozenset[PortName]) -> _Marks:
    value, version = int(member.address), member.address.version
    around = (of_length.get(value >> bits) for (family, bits), of_length in blocks.items() if family == version)
    ports = (port for port in member.workload.ports if (port.name, port.protocol) in names)
    return _Marks(frozenset(network for network in around if network is not None), frozenset(ports))


def _labels(marks: _Marks) -> LabelSet:
    return frozenset(Label(IPBLOCK_SOURCE, str(block)) for block in marks.blocks)
