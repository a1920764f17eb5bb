"""A commit as a world in which flows are judged: those workloads of it that are asked about, wherever they run.

A side's verdict depends on its own rules and on who the peer is, so the other workloads are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.compile.cache import CompileCache
from reconciler.compile.cookies import EGRESS, INGRESS
from reconciler.compile.host import Judging
from reconciler.model.identity import FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.policy import PROTOCOLS
from reconciler.model.policy_test import DestinationPort, Party
from reconciler.model.snapshot import Snapshot
from reconciler.verdict.asked_workloads import Member, Members, guesses
from reconciler.verdict.case import CaseError, End, IpAddress, Question, Standing
from reconciler.verdict.parties import Directory, Found, Known, Numbered, OfReserved, OfWorkload, Outside
from reconciler.verdict.port_points import telling_ports
from reconciler.verdict.rows import Ipcache, Peer, PolicyRows
from reconciler.verdict.trace import Who
from reconciler.verdict.world import World

MOST_PAIRS = 10_000  # of ends that two parties may stand for
_REMOTE = "remote-node"
_FAMILY_OF = {PROTOCOLS["ICMP"]: 4, PROTOCOLS["ICMPV6"]: 6}


@dataclass(frozen=True, slots=True)
class Spot:
    """An end of the world as one of those that a party stands for, for flows of one family (0: of either).

    alone       the one workload that it is, '' for several or none
    node        where its workloads are
    host_of     it is this node's host; workloads of other nodes see a remote node
    """

    end: str
    family: int = 0
    alone: str = ""
    node: str = ""
    host_of: str = ""


@dataclass(frozen=True, slots=True)
class ClusterWorld:
    """`spots`: party -> what it stands for; `who`: end of the world -> what it is called."""

    commit: str
    world: World
    spots: Mapping[Party, tuple[Spot, ...]]
    who: Mapping[str, Who]

    def questions(self, source: Party, destination: Party, port: DestinationPort | None) -> list[Question]:
        """The flows that are meant, one for each two identities; without a port those that stand for every port.

        Raises CaseError if there are none, or far too many.
        """
        families = (_FAMILY_OF.get(port.protocol, 0),) if port else _FAMILY_OF.values()
        found = dict.fromkeys(
            Question(*ends, one.protocol, one.number)
            for family in families
            for ends in self._pairs(source, destination, family)
            for one in ([port] if port else self._every_port(*ends))
            if _FAMILY_OF.get(one.protocol, family) == family
        )
        if not found:
            raise CaseError(
                f"no flow from {source} to {destination} is judged: they must be two, one of them a workload, with an "
                "address family in common"
            )
        return list(found)

    def _pairs(self, source: Party, destination: Party, family: int) -> list[tuple[str, str]]:
        """Ends between which flows of this family (0: of any) are meant, a pair for any two identities."""
        count = len(self.spots[source]) * len(self.spots[destination])
        if count > MOST_PAIRS:
            raise CaseError(f"{source} and {destination} stand for {count} pairs, over {MOST_PAIRS}: name fewer")
        found: dict[tuple[int, int], tuple[str, str]] = {}
        for one in self.spots[source]:
            for other in self.spots[destination]:
                if self._flows(one, other, family):
                    ends = _seen(one, other), _seen(other, one)
                    found.setdefault((self._identity(ends[0]), self._identity(ends[1])), ends)
        return list(found.values())

    def _every_port(self, source: str, destination: str) -> list[DestinationPort]:
        sides = ((self._identity(source), EGRESS), (self._identity(destination), INGRESS))
        return telling_ports(self.world.judging, sides)

    def _identity(self, end: str) -> int:
        return self.world.peers[end].identity

    def _flows(self, one: Spot, other: Spot, family: int) -> bool:
        alike = len({one.family, other.family, family} - {0}) <= 1
        itself = bool(one.alone) and one.alone == other.alone
        return alike and not itself and (self._is_policed(one) or self._is_policed(other))

    def _is_policed(self, spot: Spot) -> bool:
        return self.world.ends[spot.end].standing is Standing.POLICED


def _seen(spot: Spot, other: Spot) -> str:
    """What a node's address is depends on who looks at it."""
    return _REMOTE if spot.host_of and other.node and other.node != spot.host_of else spot.end


def cluster_world(
    snapshot: Snapshot, parties: Iterable[Party], known: Known | None = None, cache: CompileCache | None = None
) -> ClusterWorld:
    """Where flows between any of the parties can be judged. `known`: what a host has allocated for this very commit.

    With a `cache` the world is good until that is used again.

    Raises CaseError for a party that is not there, CompileError for what no row can express.
    """
    directory = Directory(snapshot, known)
    found = {party: directory.find(party) for party in parties}
    everyone = dict.fromkeys(one for some in found.values() for one in some)
    members = Members(snapshot, directory, everyone)
    judging = members.compiled(known, cache or CompileCache())
    ends = _Ends(judging, members, numbers_known=known is not None)
    for one in everyone:
        ends.add(one)
    return ClusterWorld(
        snapshot.commit,
        World(ends.ends, ends.peers, ends.addresses, judging, PolicyRows(judging.policy)),
        {party: ends.spots_of(some) for party, some in found.items()},
        ends.who,
    )


class _Ends:
    """Ends of a world, with what stands for them."""

    def __init__(self, judging: Judging, members: Members, *, numbers_known: bool) -> None:
        self.ends: dict[str, End] = {}
        self.peers: dict[str, Peer] = {}
        self.addresses: dict[str, IpAddress] = {}
        self.who: dict[str, Who] = {}
        self._judging = judging
        self._members = members
        self._numbers_known = numbers_known
        self._guesses = guesses(members, judging)
        self._ipcache = Ipcache(judging.ipcache)
        self._spots: dict[Found, list[Spot]] = {}

    def add(self, found: Found) -> None:
        if isinstance(found, OfReserved):
            self._spots[found] = [self._reserved(found)]
        elif isinstance(found, Outside):
            peer = self._ipcache.find(found.address)
            number = peer.identity if self._numbers_known or peer.identity < FIRST_LOCAL else 0
            end = self._end(str(found.address), Standing.OUTSIDE, peer, Who(str(found.address), number, frozenset()))
            self.addresses[end] = found.address
            self._spots[found] = [Spot(end, found.address.version)]
        elif isinstance(found, Numbered):
            name = f"identity {found.number}"
            who = Who(name, found.number, found.labels)
            self._spots[found] = [Spot(self._end(name, Standing.OUTSIDE, Peer(found.number, 0), who))]
        else:
            family = found.family if isinstance(found, OfWorkload) else 0
            spots = self._workload(self._members.of(found))
            self._spots[found] = [spot for spot in spots if family in (0, spot.family)]

    def spots_of(self, found: Iterable[Found]) -> tuple[Spot, ...]:
        """Those of one identity that look alike from everywhere as one."""
        grouped: dict[tuple[int, int, str, str], Spot] = {}
        for spot in (spot for one in found for spot in self._spots[one]):
            key = (self.peers[spot.end].identity, spot.family, spot.node, spot.host_of)
            known = grouped.setdefault(key, spot)
            if known.alone != spot.alone:
                grouped[key] = Spot(known.end, spot.family, "", spot.node, spot.host_of)
        return tuple(grouped.values())

    def _end(self, name: str, standing: Standing, peer: Peer, who: Who) -> str:
        labels = self._judging.labels.get(peer.identity, frozenset())
        self.ends[name] = End(standing, labels)
        self.peers[name] = peer
        self.who[name] = Who(who.name, who.identity, who.labels or labels, who.note)
        return name

    def _reserved(self, found: OfReserved) -> Spot:
        if found.node:
            self._of_kind(Reserved.REMOTE_NODE)
        return Spot(self._of_kind(found.kind), found.family, host_of=found.node)

    def _of_kind(self, kind: Reserved) -> str:
        (label,) = reserved_labels(kind)
        standing = Standing.HOST if kind is Reserved.HOST else Standing.OUTSIDE
        return self._end(label.key, standing, Peer(kind, 0), Who(label.key, kind, frozenset((label,))))

    def _workload(self, member: Member) -> Iterable[Spot]:
        """One end if its addresses have one identity, else one for each."""
        names: dict[int, str] = {}
        note = member.note or self._guesses.get(member.name, "")
        for family, address in member.addresses.items():
            peer = self._ipcache.find(address)
            if peer.identity not in names:
                name = f"{member.name} at {address}" if names else member.name
                names[peer.identity] = name
                self.addresses[name] = address
                self._end(name, Standing.POLICED, peer, Who(name, member.number, member.labels, note))
            yield Spot(names[peer.identity], family, member.name, member.home)
