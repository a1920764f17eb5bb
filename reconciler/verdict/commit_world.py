"""A commit as a world in which flows are judged: those workloads of it that are asked about, wherever they run.

A side's verdict depends on its own rules and on who the peer is, so the other workloads are left out. To other nodes a
workload is what its address is there. With an embedded store, which serves one host, they know fixed addresses only,
and what else lies in a node's CIDR is unmanaged (`compile.networks`).
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Judging
from reconciler.engine.rows import Columns
from reconciler.model.datapath import IpcacheFlag
from reconciler.model.identity import FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.policy_test import Party
from reconciler.model.snapshot import Snapshot
from reconciler.verdict.asked_workloads import Member, Members, guesses
from reconciler.verdict.case import End, IpAddress, Standing
from reconciler.verdict.cluster_world import ClusterWorld, Spot
from reconciler.verdict.parties import Directory, Found, Known, Numbered, OfReserved, OfWorkload, Outside
from reconciler.verdict.rows import Ipcache, Peer, PolicyRows
from reconciler.verdict.trace import Who
from reconciler.verdict.world import World

_UNKNOWN = "other nodes do not know its address, and take it for unmanaged: give it `addresses`"

_NOT_KNOWN_HERE = (
    "which workload has it is not known without a host, so it is judged as unmanaged: "
    "name the workload, give it `addresses`, or ask a host (`plumb trace` there, a push)"
)


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
        others = (judging.ipcache.values["flags"] & IpcacheFlag.LOCAL) == 0
        self._elsewhere = Ipcache(Columns(judging.ipcache.keys[others], judging.ipcache.values[others]))
        self._spots: dict[Found, list[Spot]] = {}

    def add(self, found: Found) -> None:
        if isinstance(found, OfReserved):
            self._spots[found] = [self._reserved(found)]
        elif isinstance(found, Outside):
            peer = self._ipcache.find(found.address)
            number = peer.identity if self._numbers_known or peer.identity < FIRST_LOCAL else 0
            note = "" if self._numbers_known or not self._members.may_have(found.address) else _NOT_KNOWN_HERE
            who = Who(str(found.address), number, frozenset(), note)
            end = self._end(str(found.address), Standing.OUTSIDE, peer, who)
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
        """Those of one identity and mode that look alike from everywhere as one."""
        grouped: dict[tuple[Peer, int, str, Peer], Spot] = {}
        for spot in (spot for one in found for spot in self._spots[one]):
            seen = self.peers[spot.elsewhere or spot.end]
            key = (self.peers[spot.end], spot.family, spot.node, seen)
            known = grouped.setdefault(key, spot)
            if known.alone != spot.alone:
                grouped[key] = Spot(known.end, spot.family, "", spot.node, known.elsewhere)
        return tuple(grouped.values())

    def _end(self, name: str, standing: Standing, peer: Peer, who: Who) -> str:
        labels = self._judging.labels.get(peer.identity, frozenset())
        self.ends[name] = End(standing, labels)
        self.peers[name] = peer
        self.who[name] = Who(who.name, who.identity, who.labels or labels, who.note)
        return name

    def _reserved(self, found: OfReserved) -> Spot:
        elsewhere = self._of_kind(Reserved.REMOTE_NODE) if found.node else ""
        return Spot(self._of_kind(found.kind), found.family, node=found.node, elsewhere=elsewhere)

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
            seen = "" if family in member.announced else self._unmanaged(member, address)
            yield Spot(names[peer.identity], family, member.name, member.home, seen)

    def _unmanaged(self, member: Member, address: IpAddress) -> str:
        """The end that other nodes take the workload for."""
        name = f"{member.name} at {address}, elsewhere"
        peer = self._elsewhere.find(address)
        return self._end(name, Standing.OUTSIDE, peer, Who(member.name, peer.identity, frozenset(), _UNKNOWN))
