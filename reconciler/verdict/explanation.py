"""Why one side of a flow says what it says: every rule that selects the subject, entry by entry.

The verdict is the rows' (`by_rows`). The reasons come from what those rows were made of, by the functions that made
them, and the entry that decided is found by the cookie of the row: so reasons and verdict cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from reconciler.compile.contents import INGRESS
from reconciler.compile.cookies import ALLOW_LOCALHOST, RuleInfo
from reconciler.compile.entries import Entry
from reconciler.compile.host import Judging
from reconciler.compile.ports import ANY_PORT, ICMP, PORT_BITS, PortPrefix
from reconciler.compile.stance import (
    Context,
    Stance,
    Subject,
    counting,
    isolates,
    items,
    required_peers,
    requires,
    speaks,
    stance,
)
from reconciler.compile.wording import selector
from reconciler.model.cluster import AllowLocalhost, Enforcement
from reconciler.model.datapath import Verdict
from reconciler.model.identity import Reserved
from reconciler.model.policy import PolicyRule, RuleItem
from reconciler.verdict import wording
from reconciler.verdict.case import Side, Word


class Condition(Enum):
    """What an entry asks of a flow; `REQUIRES` is what other rules ask of the peers of all entries that allow."""

    PEER = "peer"
    PROTOCOL = "protocol"
    PORT = "port"  # of the same protocol
    REQUIRES = "requires"


@dataclass(frozen=True, slots=True)
class EntryReason:
    """An entry, its peers and ports in words, and the conditions that the flow does not meet.

    `akin`: it names a port and the flow has one, or it names a type of ICMP and the flow is ICMP, of whatever version.
    """

    info: RuleInfo
    action: Word
    peers: str
    ports: str
    misses: tuple[Condition, ...]
    decides: bool
    akin: bool = True

    @property
    def matches(self) -> bool:
        return not self.misses


@dataclass(frozen=True, slots=True)
class RuleReason:
    """A rule that selects the subject and speaks of the direction.

    counts      false: it is in audit mode beside rules that are enforced, or nothing is enforced at all
    isolates    whether it denies by default; `decides`: that is what decided
    requires    what it asks of all peers, in words
    """

    info: RuleInfo
    counts: bool
    audit: bool
    isolates: bool
    decides: bool
    requires: tuple[str, ...]
    entries: tuple[EntryReason, ...]


class Enforced(Enum):
    """Whether what no entry allows is denied, and what says so."""

    RULES = "a rule isolates it in this direction"
    ALWAYS = "policy.enforcement of the Cluster is always"
    INIT = "it has no identity of its own yet (reserved:init)"
    OPEN = "no rule isolates it in this direction"
    NEVER = "policy.enforcement of the Cluster is never"


@dataclass(frozen=True, slots=True)
class SideReason:
    """`decided` is None where no row is there. `audit`: the workload itself is in audit mode.

    `nearest` is the entry that would have allowed the flow but for one condition, where it is denied by default.
    """

    side: Side
    enforced: Enforced
    audit: bool
    decided: RuleInfo | None
    rules: tuple[RuleReason, ...]
    nearest: EntryReason | None

    @property
    def is_enforced(self) -> bool:
        return self.enforced not in (Enforced.OPEN, Enforced.NEVER)

    @property
    def by_default(self) -> bool:
        """Whether it was decided by no entry, but for want of one."""
        return _deciding(self.rules) is None


@dataclass(frozen=True, slots=True)
class Asked:
    """One side of a question: identities of the subject and of its peer. `audit`: of the subject."""

    subject: int
    peer: int
    direction: str
    protocol: int
    port: int
    audit: bool = False


def explain(judging: Judging, asked: Asked, side: Side) -> SideReason:
    """`side` is the verdict of the rows of `judging` on what is asked. O(entries of the subject's rules)."""
    subject, context = judging.subjects[asked.subject], judging.context
    held = stance(subject, asked.direction, context)
    counted, _ = counting(subject, asked.direction, context)
    isolated = held.default.verdict is Verdict.DEFAULT_DENY
    reader = _Reader(asked, subject, context, side, required_peers(counted, asked.direction, context.index))
    rules = tuple(reader.rules(counted))
    if isolated and asked.direction == INGRESS and context.allow_localhost is AllowLocalhost.ALWAYS:
        rules += (reader.localhost(),)
    denied = side.word is Word.DENY or side.audited
    return SideReason(
        side,
        _enforced(subject, context, held),
        asked.audit,
        judging.rules.get(side.cookie),
        rules,
        _nearest(rules) if denied and isolated and _deciding(rules) is None else None,
    )


def _deciding(rules: Iterable[RuleReason]) -> EntryReason | None:
    return next((entry for rule in rules for entry in rule.entries if entry.decides), None)


def _enforced(subject: Subject, context: Context, held: Stance) -> Enforced:
    if context.enforcement is Enforcement.NEVER:
        return Enforced.NEVER
    if held.default.verdict is not Verdict.DEFAULT_DENY:
        return Enforced.OPEN
    if held.default.cookie not in context.cookies.settings.values():
        return Enforced.RULES
    return Enforced.INIT if subject.always else Enforced.ALWAYS


# What is wrong with an entry that all but matches, the likeliest first.
_LIKELIHOOD = (Condition.PORT, Condition.PEER, Condition.REQUIRES, Condition.PROTOCOL)


def _nearest(rules: Iterable[RuleReason]) -> EntryReason | None:
    """Of the entries that allow, the likeliest of those that miss one condition."""
    allowing = [entry for rule in rules if rule.counts for entry in rule.entries if entry.action is not Word.DENY]
    one_off = [entry for entry in allowing if len(entry.misses) == 1]
    return min(one_off, key=lambda entry: (_LIKELIHOOD.index(entry.misses[0]), not entry.akin), default=None)


class _Reader:
    """Reads rules as they concern one flow."""

    def __init__(self, asked: Asked, subject: Subject, context: Context, side: Side, required: int | None) -> None:
        self._asked = asked
        self._subject = subject
        self._context = context
        self._side = side
        self._required = required
        self._bit = context.index.bit(asked.peer)

    def rules(self, counted: list[PolicyRule]) -> Iterator[RuleReason]:
        counting_ids = set(map(id, counted))
        for rule in self._subject.rules:
            if speaks(rule, self._asked.direction):
                yield self._rule(rule, counts=id(rule) in counting_ids)

    def _rule(self, rule: PolicyRule, *, counts: bool) -> RuleReason:
        cookies = self._context.cookies.of_rule[id(rule)]
        direction = self._asked.direction
        isolating = isolates(rule, direction)
        return RuleReason(
            RuleInfo(rule.origin, rule.reference, direction),
            counts,
            rule.audit,
            isolating,
            isolating and counts and cookies[direction] == self._side.cookie,
            tuple(map(selector, requires(rule, direction))),
            tuple(self._entry(rule, item, cookies[item.field], counts) for item in items(rule, direction)),
        )

    def _entry(self, rule: PolicyRule, item: RuleItem, cookie: int, counts: bool) -> EntryReason:
        misses = tuple(self._misses(item, cookie))
        return EntryReason(
            RuleInfo(item.origin, rule.reference, item.field),
            Word.DENY if item.deny else Word.REDIRECT if item.l7 else Word.ALLOW,
            wording.peers(item.peers),
            wording.ports(item.ports),
            misses,
            counts and not misses and cookie == self._side.cookie,
            any((match.protocol in ICMP) == (self._asked.protocol in ICMP) for match in item.ports or ()),
        )

    def _misses(self, item: RuleItem, cookie: int) -> Iterator[Condition]:
        """Each condition by itself, by asking what the entry would be without the others."""
        if not any(self._reaches(entry) for entry in self._entries(replace(item, ports=None), cookie)):
            yield Condition.PEER
        if not any(
            self._reaches(entry) and any(map(self._covers, entry.claim.ports))
            for entry in self._entries(replace(item, peers=None), cookie)
        ):
            of_protocol = any(match.protocol == self._asked.protocol for match in item.ports or ())
            yield Condition.PORT if of_protocol else Condition.PROTOCOL
        if not item.deny and self._required is not None and not self._required & self._bit:
            yield Condition.REQUIRES

    def _entries(self, item: RuleItem, cookie: int) -> tuple[Entry, ...]:
        if self._asked.direction == INGRESS:
            return self._context.entries.ingress(item, cookie, self._subject.ports)
        return self._context.entries.egress(item, cookie)

    def _reaches(self, entry: Entry) -> bool:
        return entry.peers is None or bool(entry.peers & self._bit)

    def _covers(self, prefix: PortPrefix) -> bool:
        if prefix == ANY_PORT:
            return True
        free = PORT_BITS - prefix.bits
        return prefix.protocol == self._asked.protocol and prefix.port >> free == self._asked.port >> free

    def localhost(self) -> RuleReason:
        """The setting that lets the host in, as if it were a rule."""
        cookie = self._context.cookies.settings[ALLOW_LOCALHOST]
        info = self._context.cookies.infos[cookie]
        misses = () if self._asked.peer == Reserved.HOST else (Condition.PEER,)
        entry = EntryReason(info, Word.ALLOW, "host", wording.ports(None), misses, cookie == self._side.cookie)
        return RuleReason(info, True, False, False, False, (), (entry,))
