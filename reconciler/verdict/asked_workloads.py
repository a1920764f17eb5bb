"""The workloads that are asked about, with what they have and, where that is not known, what they are supposed to have.

Every one of them counts as local. An address that nobody has allocated, or only another host, is supposed to be the
first free one of its node's CIDR: that matters to an ipBlock that covers a part of the CIDR, and to nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Judging, compile_judging
from reconciler.compile.networks import IpNetwork
from reconciler.model.cluster import Node, StoreKind, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_CLUSTER, Reserved, reserved_labels
from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin
from reconciler.model.policy import CidrPeer
from reconciler.model.snapshot import Snapshot
from reconciler.verdict.case import IpAddress
from reconciler.verdict.parties import Directory, Found, Imagined, Known, Numbered, OfWorkload, Outside, labels_of

_HERE = "here"
_MAC = "02:00:00:00:00:01"
_NOWHERE = int(IPv6Address("100::"))  # RFC 6666: addresses that nobody has


@dataclass(frozen=True, slots=True)
class Member:
    """A workload of the world, on the one node that there is. `home`: the node that it is on in the commit.

    `number` is 0 if nobody has allocated an identity. `supposed`: the CIDRs that its addresses were supposed from.
    `announced`: the families of addresses that other nodes know.
    """

    workload: Workload
    labels: LabelSet
    home: str
    number: int
    addresses: Mapping[int, IpAddress]
    supposed: tuple[IpNetwork, ...]
    announced: frozenset[int]
    name: str
    note: str = ""


class Members:
    """The workloads that are asked about, with labels, numbers and addresses."""

    def __init__(self, snapshot: Snapshot, directory: Directory, everyone: Iterable[Found]) -> None:
        self._snapshot = snapshot
        self._directory = directory
        self._numbered = [one for one in everyone if isinstance(one, Numbered)]
        self._taken: set[IpAddress] = {one.address for one in everyone if isinstance(one, Outside)}
        for node in snapshot.nodes.values():
            self._taken |= {one for one in (node.address4, node.address6) if one is not None}
        known = [one.reference for one in everyone if isinstance(one, OfWorkload)]
        for reference in known:
            self._taken |= set(directory.addresses(reference).values())
        self._free_ones: dict[IpNetwork, Iterator[IpAddress]] = {}
        self._members: dict[str | Imagined, Member] = {}
        for one in everyone:
            if isinstance(one, OfWorkload):
                if one.reference not in self._members:
                    self._members[one.reference] = self._real(one.reference)
            elif isinstance(one, Imagined):
                self._members[one] = self._imagined(one, len(self._members))

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def may_have(self, address: IpAddress) -> bool:
        """Whether a workload of the commit, asked about or not, may be given this address once it is connected."""
        around = {
            node.name
            for node in self._snapshot.nodes.values()
            if any(cidr is not None and address in cidr for cidr in (node.cidr4, node.cidr6))
        }
        return any(
            one.node in around and (one.address4 if address.version == 4 else one.address6) is None
            for one in self._snapshot.workloads.values()
        )

    def of(self, one: OfWorkload | Imagined) -> Member:
        return self._members[one.reference if isinstance(one, OfWorkload) else one]

    def _real(self, reference: str) -> Member:
        workload = self._snapshot.workloads[reference]
        addresses, supposed = self._addresses(
            self._snapshot.nodes.get(workload.node), self._directory.addresses(reference)
        )
        return Member(
            replace(workload, node=_HERE),
            labels_of(self._snapshot, workload.namespace, workload.labels),
            workload.node,
            self._directory.identity(reference),
            addresses,
            supposed,
            self._announced(workload, addresses),
            reference,
        )

    def _announced(self, workload: Workload, addresses: Iterable[int]) -> frozenset[int]:
        if self._snapshot.cluster.store.kind is not StoreKind.EMBEDDED:
            return frozenset(addresses)
        return frozenset(one.version for one in (workload.address4, workload.address6) if one is not None)

    def _imagined(self, one: Imagined, place: int) -> Member:
        """Somewhere in the cluster, since nobody says where."""
        home = next((node for node in self._snapshot.nodes.values() if node.cidr4 or node.cidr6), None)
        addresses, supposed = self._addresses(home, {})
        labels = dict(one.labels)
        origin = Origin("", 0, "Workload", "", "")
        name = ",".join(f"{key}={value}" for key, value in (*one.labels, ("namespace", one.namespace)))
        return Member(
            Workload(one.namespace, f"?{place}", _HERE, origin, "", labels=labels),
            labels_of(self._snapshot, one.namespace, labels),
            "",
            0,
            addresses or {6: IPv6Address(_NOWHERE + 1 + place)},
            supposed,
            frozenset((4, 6)),
            name,
            "no workload has these labels: judged as if one had",
        )

    def _addresses(
        self, node: Node | None, given: Mapping[int, IpAddress]
    ) -> tuple[dict[int, IpAddress], tuple[IpNetwork, ...]]:
        """One of each family that the node has a CIDR of, and the CIDRs of those that were supposed."""
        found, supposed = dict(given), []
        for cidr in (node.cidr4, node.cidr6) if node else ():
            if cidr is not None and cidr.version not in found:
                found[cidr.version] = self._free(cidr)
                supposed.append(cidr)
        return found, tuple(supposed)

    def _free(self, cidr: IpNetwork) -> IpAddress:
        """Its first where all others are taken: whatever an address stands for, there must be one."""
        free = self._free_ones.setdefault(cidr, (one for one in cidr.hosts() if one not in self._taken))
        return next(free, cidr[0])

    def compiled(self, known: Known | None, cache: CompileCache) -> Judging:
        """Raises CompileError."""
        facts = self._facts(known)
        workloads = {one.workload.reference: one.workload for one in self}
        nodes = {name: replace(node, address4=None, address6=None) for name, node in self._snapshot.nodes.items()}
        return compile_judging(replace(self._snapshot, nodes=nodes, workloads=workloads), facts, cache)

    def _facts(self, known: Known | None) -> Facts:
        highest = max((number for number in known.facts.identities), default=0) if known else 0
        fresh = max(highest + 1, FIRST_CLUSTER)
        numbers: dict[LabelSet, int] = {one.labels: one.number for one in self if one.number}
        for one in self:
            if one.labels not in numbers:
                numbers[one.labels] = fresh
                fresh += 1
        identities = {number: labels for labels, number in numbers.items()}
        identities |= {int(kind): reserved_labels(kind) for kind in Reserved if kind is not Reserved.UNKNOWN}
        identities |= {one.number: one.labels for one in self._numbered}
        endpoints = {one.workload.reference: _endpoint(one, numbers[one.labels]) for one in self}
        return Facts(_HERE, identities, endpoints, frozenset())


def _endpoint(one: Member, number: int) -> Endpoint:
    address4, address6 = one.addresses.get(4), one.addresses.get(6)
    assert address4 is None or isinstance(address4, IPv4Address)
    assert address6 is None or isinstance(address6, IPv6Address)
    return Endpoint(one.workload.reference, _HERE, number, "", address4, address6, _MAC)


def guesses(members: Iterable[Member], judging: Judging) -> dict[str, str]:
    """name -> what must be said of those whose supposed address may decide."""
    supposing = [one for one in members if one.supposed]
    blocks = set(_blocks(judging)) if supposing else set()
    parts = {
        cidr: [block for block in blocks if block != cidr and _is_inside(block, cidr)]
        for cidr in {cidr for one in supposing for cidr in one.supposed}
    }
    found = {}
    for one in supposing:
        listed = ", ".join(sorted(str(block) for cidr in one.supposed for block in parts[cidr]))
        if listed:
            found[one.name] = f"its address is not known here; whether {listed} covers it is a guess"
    return found


def _blocks(judging: Judging) -> Iterator[IpNetwork]:
    """CIDRs of rules that workloads may lie in."""
    for rule in {id(rule): rule for subject in judging.subjects.values() for rule in subject.rules}.values():
        for item in rule.ingress + rule.egress:
            for peer in item.peers or ():
                if isinstance(peer, CidrPeer) and peer.matches_workloads:
                    yield from (peer.network, *peer.excepts)


def _is_inside(block: IpNetwork, cidr: IpNetwork) -> bool:
    return block.version == cidr.version and block.prefixlen >= cidr.prefixlen and block.network_address in cidr
