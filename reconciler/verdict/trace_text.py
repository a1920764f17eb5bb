"""Traces for people: what became of a flow, and under each side every rule with what it makes of it.

default/stranger -> default/web 80/tcp: denied

egress of default/stranger: allow
  not enforced: no rule isolates it in this direction

ingress of default/web: deny, by default
  enforced: a rule isolates it in this direction
  NetworkPolicy/default/web isolates, and decides  policies/web.yaml:1 @ 1a2b3c4d
    - ingress[0]  allow  app=client, namespace=default  80/tcp  not this peer  policies/web.yaml:10 @ 1a2b3c4d
  nearest miss: NetworkPolicy/default/web ingress[0] allows 80/tcp, but only app=client, namespace=default
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.compile.contents import EGRESS, INGRESS
from reconciler.verdict import wording
from reconciler.verdict.case import Word
from reconciler.verdict.explanation import Condition, EntryReason, RuleReason, SideReason
from reconciler.verdict.trace import Trace, Who

_MISSES = {
    Condition.PEER: "not this peer",
    Condition.PROTOCOL: "not this protocol",
    Condition.PORT: "not this port",
    Condition.REQUIRES: "not as required",
}
_WIDEST = 50  # characters of peers or ports; JSON has them whole
_MARKS = {True: "*", False: "-"}


def to_text(one: Trace) -> str:
    """Several lines, without an end of line."""
    return "\n".join(_lines(one))


def _lines(one: Trace) -> Iterator[str]:
    commit = f" at {one.commit[: wording.COMMIT_DIGITS]}" if one.commit else ""
    yield f"{_named(one.source)} -> {_named(one.destination)} {one.port}{commit}: {one.verdict}"
    for who in (one.source, one.destination):
        if who.note:
            yield f"{who.name}: {who.note}"
    for direction, who, side in ((EGRESS, one.source, one.egress), (INGRESS, one.destination, one.ingress)):
        yield ""
        if side is None:
            yield f"{direction} of {who.name}: no policy for workloads is asked"
        else:
            yield f"{direction} of {who.name}: {_outcome(side)}"
            yield from (f"  {line}" for line in _side(side))


def _named(who: Who) -> str:
    return f"{who.name} (id {who.identity})" if who.identity else who.name


def _outcome(side: SideReason) -> str:
    if side.side.audited:
        return "allow, in audit mode: it would be denied"
    if side.side.word is Word.DENY:
        return "deny, by default" if side.by_default else "deny, by a rule"
    return str(side.side.word.value)


def _side(side: SideReason) -> Iterator[str]:
    yield f"{'enforced' if side.is_enforced else 'not enforced'}: {side.enforced.value}"
    if side.audit:
        yield "policyAuditMode: what is denied here is recorded, and passes"
    for rule in side.rules:
        yield from _rule(rule)
    if side.nearest is not None:
        yield f"nearest miss: {_miss(side.nearest)}"


def _rule(rule: RuleReason) -> Iterator[str]:
    words = [rule.info.reference]
    words += ["isolates" + (", and decides" if rule.decides else "")] if rule.isolates else []
    words += ["(audit)"] if rule.audit else []
    words += [] if rule.counts else ["(does not count)"]
    yield f"{' '.join(words)}  {wording.place(rule.info)}"
    yield from (f"  requires {one}" for one in rule.requires)
    yield from (f"  {line}" for line in _aligned([_cells(entry) for entry in rule.entries]))


def _cells(entry: EntryReason) -> tuple[str, ...]:
    result = ", ".join(_MISSES[one] for one in entry.misses) or ("decides" if entry.decides else "matches")
    mark = _MARKS[entry.matches]
    return (
        f"{mark} {entry.info.field}",
        entry.action.value,
        _cut(entry.peers),
        _cut(entry.ports),
        result,
        wording.place(entry.info),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _miss(entry: EntryReason) -> str:
    what = f"{entry.info.reference} {entry.info.field}"
    missed = entry.misses[0]
    if missed in (Condition.PORT, Condition.PROTOCOL):
        return f"{what} is for this peer, but for {entry.ports} only"
    if missed is Condition.PEER:
        return f"{what} is for this port, but for {entry.peers} only"
    return f"{what} matches, but the peer lacks what another rule requires of all"
