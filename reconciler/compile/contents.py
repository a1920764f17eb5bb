"""What a rule says, apart from where it stands.

Every commit has new rules, as their origins name it; what they say is mostly what it was. So each rule is given its
content: the same object from one compile to the next while the rule says the same. What follows from contents alone is
worked out once and kept with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter
from typing import NamedTuple

from reconciler.compile.numbering import hashed
from reconciler.model.policy import CidrPeer, PolicyRule, RuleItem, ServicePeer

INGRESS = "ingress"
EGRESS = "egress"
COOKIES = (1 << 32) - 1

_SAID = attrgetter(
    "kind",
    "namespace",
    "name",
    "subject",
    "scope",
    "isolates_ingress",
    "isolates_egress",
    "requires_ingress",
    "requires_egress",
    "audit",
)
_ENTRY = attrgetter("field", "peers", "ports", "deny", "l7")


@dataclass(eq=False, frozen=True, slots=True)
class Content:
    """Equal only to itself.

    named       what has a cookie, by reference and field: directions that it isolates (`isolations`), then entries
    called      the same as names of which no two are alike, even in several `specs` of one document
    cookies     field -> cookie, where no other name draws the same one; `drawn`: the cookies alone
    asks        whether it asks for more than labels: CIDRs, services, named ports
    services    peers that can mean something else though the rule is the same
    """

    named: tuple[tuple[str, str], ...]
    isolations: int
    called: tuple[str, ...]
    cookies: Mapping[str, int]
    drawn: tuple[int, ...]
    asks: bool
    services: tuple[ServicePeer, ...]


_Said = tuple[tuple[object, ...], list[tuple[object, ...]], list[tuple[object, ...]]]  # the rule, and its entries


class _Known(NamedTuple):
    said: _Said
    content: Content


def _name(said: _Said) -> tuple[object, ...]:
    return said[0][:3]


class Contents:
    """Remembers those of the last rules, in their order."""

    def __init__(self) -> None:
        self._last: list[_Known] = []
        self._by_name: dict[object, list[_Known]] | None = None

    def of(self, rules: Sequence[PolicyRule]) -> dict[int, Content]:
        """id() of a rule -> its content. O(entries); about 2 us a rule whose parts are the objects of last time."""
        known: list[_Known] = []
        for rule, there in zip(rules, chain(self._last, repeat(None)), strict=False):
            said: _Said = (_SAID(rule), [*map(_ENTRY, rule.ingress)], [*map(_ENTRY, rule.egress)])
            if there is None or there.said != said:
                there = self._moved(there, said) or _Known(said, _content(rule))
            known.append(there)
        self._last, self._by_name = known, None
        return {id(rule): one.content for rule, one in zip(rules, known, strict=True)}

    def _moved(self, there: _Known | None, said: _Said) -> _Known | None:
        """What was known at another place than `there`, where a rule of this name would have changed."""
        if there is not None and _name(there.said) == _name(said):
            return None
        if self._by_name is None:
            self._by_name = {}
            for one in self._last:
                self._by_name.setdefault(_name(one.said), []).append(one)
        return next((one for one in self._by_name.get(_name(said), ()) if one.said == said), None)


def _content(rule: PolicyRule) -> Content:
    reference = rule.reference
    isolated = tuple(_isolated(rule))
    entries = rule.ingress + rule.egress
    fields = isolated + tuple(entry.field for entry in entries)
    within = _within(entries)
    called = (
        *(f"{reference} {within}{direction}" for direction in isolated),
        *(f"{reference} {entry.field}" for entry in entries),
    )
    drawn = tuple(hashed(name, 0) % COOKIES + 1 for name in called)
    peers = [peer for entry in entries for peer in entry.peers or ()]
    named = any(match.name for entry in entries for match in entry.ports or ())
    return Content(
        tuple((reference, field) for field in fields),
        len(isolated),
        called,
        dict(zip(fields, drawn, strict=True)),
        drawn,
        named or any(isinstance(peer, CidrPeer | ServicePeer) for peer in peers),
        tuple(peer for peer in peers if isinstance(peer, ServicePeer)),
    )


def _within(entries: Sequence[RuleItem]) -> str:
    """What stands before the fields of a rule's entries: `specs[1].`, or nothing."""
    head, dot, _ = entries[0].field.partition(".") if entries else ("", "", "")
    return head + dot if head.startswith("specs[") else ""


def _isolated(rule: PolicyRule) -> Iterator[str]:
    if rule.isolates_ingress:
        yield INGRESS
    if rule.isolates_egress:
        yield EGRESS
