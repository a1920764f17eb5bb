"""Entries that change nothing because of another one: covered by a wider entry, or denying what nothing allows.

Only pairs are looked at: an entry that several others cover together is not found. What a proxy judges, and rules in
audit mode, neither cover nor are covered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.compile.port_sets import PortSets
from reconciler.compile.selectors import bitmap, positions
from reconciler.model.origin import Origin
from reconciler.model.policy import PolicyRule, RuleItem

MAX_COMPARED = 200  # entries that one is compared with: many rules on one subject must not take seconds

Said = tuple[Origin, str]


class Stated(NamedTuple):
    """An entry, and whom it is about: bitmaps of the subjects of its rule and of its peers."""

    rule: PolicyRule
    item: RuleItem
    subjects: int
    peers: int

    @property
    def name(self) -> str:
        return f"{self.item.field} of {self.rule.reference}"

    @property
    def place(self) -> str:
        return f"{self.name} at {self.item.origin.path}:{self.item.origin.line}"


def covered(entries: Sequence[Stated], ports: PortSets) -> Iterator[Said]:
    """Entries of one direction that say nothing beside a wider one."""
    lowest = [_lowest(one.subjects) for one in entries]
    sharing = _sharing(entries, lowest)
    for number, one in enumerate(entries):
        for other in sharing[lowest[number]]:
            if other != number and _covers(entries, other, number, ports):
                yield one.item.origin, _why(one, entries[other])
                break


def _sharing(entries: Sequence[Stated], lowest: Sequence[int]) -> dict[int, list[int]]:
    """Subject -> the entries about it, at most `MAX_COMPARED`; only for subjects (each a position) among `lowest`."""
    asked = bitmap(lowest)
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(entries):
        for position in positions(one.subjects & asked).tolist():
            if len(found[position]) < MAX_COMPARED:
                found[position].append(number)
    return found


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _covers(entries: Sequence[Stated], wide: int, narrow: int, ports: PortSets) -> bool:
    """Of two that say the same, the earlier covers the later."""
    one, other = entries[narrow], entries[wide]
    if one.peers & other.peers != one.peers or one.subjects & other.subjects != one.subjects:
        return False
    if (one.item.deny and not other.item.deny) or not ports.cover(other.item.ports, one.item.ports):
        return False
    same = (one.item.deny, one.subjects, one.peers) == (other.item.deny, other.subjects, other.peers)
    return wide < narrow or not (same and ports.cover(one.item.ports, other.item.ports))


def _why(one: Stated, wide: Stated) -> str:
    effect = "allows" if wide.item.deny and not one.item.deny else "adds"
    return f"{one.name} {effect} nothing: {wide.place} {'denies' if wide.item.deny else 'allows'} all of it"


def idle(entries: Sequence[Stated], isolated: int, allowed: int, everyone: int, ports: PortSets) -> Iterator[Said]:
    """Denials, of one direction, of what nothing allows.

    A denial of everything guards against what may be allowed one day and is none of them.
    `isolated`: subjects that deny by default. `allowed`: peers that no entry needs to allow. `everyone`: all peers.
    """
    allowing = [one for one in entries if not one.item.deny]
    for one in entries:
        guards = one.peers == everyone and one.item.ports is None
        if not one.item.deny or guards or one.subjects & ~isolated or one.peers & allowed:
            continue
        near = [other for other in allowing if one.subjects & other.subjects]
        if not near:
            alone = "and nothing else passes either: to deny no more than this, set enableDefaultDeny to false"
            yield one.item.origin, f"{one.name} denies what nothing allows, {alone}"
        elif not any(one.peers & other.peers and ports.meet(one.item.ports, other.item.ports) for other in near):
            yield one.item.origin, f"{one.name} denies what nothing allows"
