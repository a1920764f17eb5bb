"""What the rules say of one subject in one direction, before peers are told apart.

Semantics: allow adds up, deny beats allow whatever its width, and what nothing mentions falls to the default: allowed
until a rule isolates the direction. An explicit deny also beats `allowLocalhost`, as it does in Cilium.

A rule in audit mode is recorded and not enforced. Where enforced rules speak of the direction, audit rules neither open
nor close anything; where none does, everything passes and what the audit rules deny is marked to be recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.compile.contents import EGRESS, INGRESS, Content
from reconciler.compile.cookies import ALLOW_LOCALHOST, ENFORCEMENT, Cookies
from reconciler.compile.entries import Entries, Entry
from reconciler.compile.ports import ANY_PORT
from reconciler.compile.precedence import Claim
from reconciler.compile.selectors import LabelIndex
from reconciler.model.cluster import AllowLocalhost, Enforcement, NamedPort
from reconciler.model.datapath import Verdict
from reconciler.model.identity import Reserved
from reconciler.model.policy import PolicyRule, RuleItem
from reconciler.model.selector import Selector


class Stance(NamedTuple):
    """`default` is the claim on everything; `audit`: denials are recorded and pass."""

    default: Claim
    entries: tuple[Entry, ...]
    audit: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What stances are made from besides the rules and the subject."""

    index: LabelIndex
    entries: Entries
    contents: Mapping[int, Content]  # by id() of a rule
    cookies: Cookies
    enforcement: Enforcement
    allow_localhost: AllowLocalhost


@dataclass(frozen=True, slots=True)
class Subject:
    """`always`: enforced even if nothing selects it (`reserved:init`). `host`: only ever if something selects it.

    `health`: a node's own endpoint for probes; whatever is enforced, nodes reach it and it reaches nobody.
    """

    rules: tuple[PolicyRule, ...]
    ports: frozenset[NamedPort]
    always: bool = False
    host: bool = False
    health: bool = False


def stance(subject: Subject, direction: str, context: Context) -> Stance:
    """`direction` is INGRESS or EGRESS. Raises CompileError for an entry that no row can express yet."""
    setting = context.cookies.settings[ENFORCEMENT]
    if subject.health:
        return _of_health(direction, setting, context.index)
    if context.enforcement is Enforcement.NEVER:
        return Stance(_everything(Verdict.ALLOW, setting), ())
    always = is_always(subject, context)
    rules, audit = counting(subject, direction, context)
    isolating = next((rule for rule in rules if isolates(rule, direction)), None)
    if isolating is not None:
        default = _everything(Verdict.DEFAULT_DENY, context.cookies.of_rule[id(isolating)][direction])
    else:
        default = _everything(Verdict.DEFAULT_DENY if always else Verdict.ALLOW, setting)
    isolated = default.verdict is Verdict.DEFAULT_DENY
    required = required_peers(rules, direction, context.index)
    found = _entries(rules, subject, direction, context)
    kept = [entry for entry in (_requiring(entry, required) for entry in found) if isolated or _matters(entry)]
    if isolated and direction == INGRESS and context.allow_localhost is AllowLocalhost.ALWAYS:
        kept.append(_localhost(context))
    return Stance(default, tuple(entry for entry in kept if entry.peers != 0), audit)


def is_always(subject: Subject, context: Context) -> bool:
    """Whether both directions are enforced though no rule may isolate them."""
    return subject.always or (context.enforcement is Enforcement.ALWAYS and not subject.host)


def counting(subject: Subject, direction: str, context: Context) -> tuple[list[PolicyRule], bool]:
    """The rules that decide in a direction, and whether what they deny is only recorded."""
    if context.enforcement is Enforcement.NEVER:
        return [], False
    enforced = [rule for rule in subject.rules if not rule.audit and speaks(rule, direction)]
    audited = [rule for rule in subject.rules if rule.audit and speaks(rule, direction)]
    audit = bool(audited) and not enforced and not is_always(subject, context)
    return (audited if audit else enforced), audit


def unrecorded(subject: Subject, enforcement: Enforcement) -> Iterator[PolicyRule]:
    """Audit rules of which nothing is recorded, because enforced rules speak of the same direction."""
    audited = [rule for rule in subject.rules if rule.audit]
    for direction in (INGRESS, EGRESS) if audited else ():
        enforced = any(not rule.audit and speaks(rule, direction) for rule in subject.rules)
        if enforced or subject.always or enforcement is not Enforcement.DEFAULT:
            yield from (rule for rule in audited if speaks(rule, direction))


def _everything(verdict: Verdict, cookie: int) -> Claim:
    return Claim((ANY_PORT,), verdict, cookie)


def _of_health(direction: str, setting: int, index: LabelIndex) -> Stance:
    nodes = Entry(index.bit(Reserved.HOST) | index.bit(Reserved.REMOTE_NODE), _everything(Verdict.ALLOW, setting))
    return Stance(_everything(Verdict.DEFAULT_DENY, setting), (nodes,) if direction == INGRESS else ())


def _localhost(context: Context) -> Entry:
    cookie = context.cookies.settings[ALLOW_LOCALHOST]
    return Entry(context.index.bit(Reserved.HOST), _everything(Verdict.ALLOW, cookie))


def _denies(entry: Entry) -> bool:
    return entry.claim.verdict is Verdict.DENY


def _matters(entry: Entry) -> bool:
    """Whether it says anything where everything else is allowed."""
    return _denies(entry) or entry.claim.redirect


def items(rule: PolicyRule, direction: str) -> tuple[RuleItem, ...]:
    return rule.ingress if direction == INGRESS else rule.egress


def requires(rule: PolicyRule, direction: str) -> tuple[Selector, ...]:
    return rule.requires_ingress if direction == INGRESS else rule.requires_egress


def isolates(rule: PolicyRule, direction: str) -> bool:
    return rule.isolates_ingress if direction == INGRESS else rule.isolates_egress


def speaks(rule: PolicyRule, direction: str) -> bool:
    return isolates(rule, direction) or bool(items(rule, direction) or requires(rule, direction))


def required_peers(rules: Iterable[PolicyRule], direction: str, index: LabelIndex) -> int | None:
    """Bitmap of the peers that every allowing entry is confined to; None where nothing is required."""
    selectors = [selector for rule in rules for selector in requires(rule, direction)]
    if not selectors:
        return None
    bits = index.everyone
    for selector in selectors:
        bits &= index.select(selector)
    return bits


def _requiring(entry: Entry, required: int | None) -> Entry:
    if required is None or _denies(entry):
        return entry
    return entry._replace(peers=required if entry.peers is None else entry.peers & required)


def _entries(rules: Sequence[PolicyRule], subject: Subject, direction: str, context: Context) -> Iterator[Entry]:
    for rule in rules:
        cookies = context.cookies.of_rule[id(rule)]
        for item in items(rule, direction):
            if direction == INGRESS:
                yield from context.entries.ingress(item, cookies[item.field], subject.ports)
            else:
                yield from context.entries.egress(item, cookies[item.field])
