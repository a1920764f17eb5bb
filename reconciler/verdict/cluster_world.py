"""A cluster in which flows between parties are judged: each side by who its own host takes the peer for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.compile.contents import EGRESS, INGRESS
from reconciler.model.policy import PROTOCOLS
from reconciler.model.policy_test import DestinationPort, Party
from reconciler.verdict.by_rows import sides
from reconciler.verdict.case import CaseError, Question, Sides, Standing
from reconciler.verdict.port_points import telling_ports
from reconciler.verdict.rows import Peer
from reconciler.verdict.trace import Trace, Who, trace
from reconciler.verdict.world import World

MOST_PAIRS = 10_000  # of ends that two parties may stand for
_FAMILY_OF = {PROTOCOLS["ICMP"]: 4, PROTOCOLS["ICMPV6"]: 6}


@dataclass(frozen=True, slots=True)
class Spot:
    """An end of the world as one of those that a party stands for, for flows of one family (0: of either).

    alone       the one workload that it is, '' for several or none
    node        where it is, '' for anywhere
    elsewhere   the end that other nodes take it for, '' if that is the same
    """

    end: str
    family: int = 0
    alone: str = ""
    node: str = ""
    elsewhere: str = ""


class Pair(NamedTuple):
    """Two ends, and what each is to the other's host."""

    source: str
    destination: str
    source_seen: str
    destination_seen: str


class Flow(NamedTuple):
    ends: Pair
    port: DestinationPort


@dataclass(frozen=True, slots=True)
class ClusterWorld:
    """`spots`: party -> what it stands for; `who`: end of the world -> what it is called."""

    commit: str
    world: World
    spots: Mapping[Party, tuple[Spot, ...]]
    who: Mapping[str, Who]

    def flows(self, source: Party, destination: Party, port: DestinationPort | None) -> list[Flow]:
        """Those that are meant, one for each two identities; without a port those that stand for every port.

        Raises CaseError if there are none, or far too many.
        """
        families = (_FAMILY_OF.get(port.protocol, 0),) if port else _FAMILY_OF.values()
        found = dict.fromkeys(
            Flow(ends, one)
            for family in families
            for ends in self._pairs(source, destination, family)
            for one in ([port] if port else self._every_port(ends))
            if _FAMILY_OF.get(one.protocol, family) == family
        )
        if not found:
            why = self._why_none(source, destination, port)
            raise CaseError(f"no flow from {source} to {destination} is judged: {why}")
        return list(found)

    def judge(self, flow: Flow) -> Sides:
        one, other = self._questions(flow)
        judged = sides(self.world, one)
        return judged if one == other else Sides(judged.egress, sides(self.world, other).ingress)

    def trace(self, flow: Flow) -> Trace:
        one, other = (trace(self.world, question) for question in self._questions(flow))
        return Trace(
            self.commit,
            self._who(flow.ends.source, flow.ends.source_seen),
            self._who(flow.ends.destination, flow.ends.destination_seen),
            flow.port,
            self.judge(flow).verdict,
            one.egress,
            other.ingress,
        )

    def _questions(self, flow: Flow) -> tuple[Question, Question]:
        """What the source's host is asked, and what the destination's."""
        ends, port = flow.ends, (flow.port.protocol, flow.port.number)
        return Question(ends.source, ends.destination_seen, *port), Question(ends.source_seen, ends.destination, *port)

    def _who(self, end: str, seen: str) -> Who:
        own, to_others = self.who[end], self.who[seen]
        return Who(own.name, own.identity, own.labels, to_others.note or own.note)

    def _pairs(self, source: Party, destination: Party, family: int) -> list[Pair]:
        """Ends between which flows of this family (0: of any) are meant, a pair for any two identities and modes."""
        count = len(self.spots[source]) * len(self.spots[destination])
        if count > MOST_PAIRS:
            raise CaseError(f"{source} and {destination} stand for {count} pairs, over {MOST_PAIRS}: name fewer")
        found: dict[tuple[Peer, ...], Pair] = {}
        for one in self.spots[source]:
            for other in self.spots[destination]:
                if self._flows(one, other, family):
                    ends = self._pair(one, other)
                    found.setdefault(tuple(self.world.peers[end] for end in ends), ends)
        return list(found.values())

    def _why_none(self, source: Party, destination: Party, port: DestinationPort | None) -> str:
        pairs = [(one, other) for one in self.spots[source] for other in self.spots[destination]]
        if not any(self._is_policed(one) or self._is_policed(other) for one, other in pairs):
            return "one of them must be a workload"
        if all(one.alone and one.alone == other.alone for one, other in pairs):
            return "they must be two"
        family = _FAMILY_OF.get(port.protocol, 0) if port else 0
        for party in (source, destination) if family else ():
            if all(spot.family not in (0, family) for spot in self.spots[party]):
                return f"{port} goes over IPv{family}, and {party} is of IPv{10 - family} only"
        return "they have no address family in common"

    def _pair(self, one: Spot, other: Spot) -> Pair:
        """An end that is no workload is only what the other takes it for."""
        source, destination = _seen(one, other), _seen(other, one)
        return Pair(
            one.end if self._is_policed(one) else source,
            other.end if self._is_policed(other) else destination,
            source,
            destination,
        )

    def _every_port(self, ends: Pair) -> list[DestinationPort]:
        peers = self.world.peers
        asked = ((peers[ends.source].identity, EGRESS), (peers[ends.destination].identity, INGRESS))
        return telling_ports(self.world.judging, asked)

    def _flows(self, one: Spot, other: Spot, family: int) -> bool:
        alike = len({one.family, other.family, family} - {0}) <= 1
        itself = bool(one.alone) and one.alone == other.alone
        return alike and not itself and (self._is_policed(one) or self._is_policed(other))

    def _is_policed(self, spot: Spot) -> bool:
        return self.world.ends[spot.end].standing is Standing.POLICED


def _seen(spot: Spot, other: Spot) -> str:
    return spot.elsewhere if spot.elsewhere and other.node and other.node != spot.node else spot.end
