"""What must hold of every explanation: its entries, read naively, give the verdict that the rows gave."""

from __future__ import annotations

from reconciler.verdict.case import Word
from reconciler.verdict.explanation import EntryReason, SideReason
from reconciler.verdict.trace import Trace

_STRENGTH = (Word.ALLOW, Word.REDIRECT, Word.DENY)


def contradictions(trace: Trace) -> list[str]:
    """What in a trace does not fit its verdict."""
    found = []
    for name, side in (("egress", trace.egress), ("ingress", trace.ingress)):
        if side is not None:
            found += [f"{name} of {trace.source.name} -> {trace.destination.name}: {text}" for text in _of(side)]
    words = {side.side.word for side in (trace.egress, trace.ingress) if side is not None}
    if (trace.verdict == "denied") != (Word.DENY in words):
        found.append(f"{trace.verdict} of {words}")
    return found


def _of(side: SideReason) -> list[str]:
    found = []
    matching = _matching(side)
    word = max((entry.action for entry in matching), key=_STRENGTH.index, default=None)
    if word is None or (not side.is_enforced and word is Word.ALLOW):
        word, by_default = (Word.DENY if side.is_enforced else Word.ALLOW), True
    else:
        by_default = False
    denied = word is Word.DENY
    on_trial = any(rule.counts and rule.audit for rule in side.rules)
    recorded = denied and (on_trial or side.audit)
    if on_trial or recorded:
        word = Word.ALLOW
    if word is not side.side.word:
        found.append(f"entries say {word}, rows say {side.side.word}")
    if side.side.audited != recorded:
        found.append(f"audited is {side.side.audited}")
    if by_default != side.by_default:
        found.append(f"by default is {side.by_default}")
    return found + _decider(side, matching, denied)


def _matching(side: SideReason) -> list[EntryReason]:
    return [entry for rule in side.rules if rule.counts for entry in rule.entries if entry.matches]


def _decider(side: SideReason, matching: list[EntryReason], denied: bool) -> list[str]:
    deciding = [entry for rule in side.rules for entry in rule.entries if entry.decides]
    isolating = [rule for rule in side.rules if rule.decides]
    found = []
    if side.decided is None:
        found.append("nothing decided")
    if len(deciding) + len(isolating) > 1 or any(entry not in matching for entry in deciding):
        found.append(f"several decide, or what does not match: {deciding} {isolating}")
    if deciding and (side.decided, denied) != (deciding[0].info, deciding[0].action is Word.DENY):
        found.append(f"{side.decided} is not {deciding[0]}")
    if isolating and not (denied and side.by_default):
        found.append("an isolating rule decides what is not denied by default")
    if side.nearest is not None and (len(side.nearest.misses) != 1 or not denied or not side.by_default):
        found.append(f"nearest miss of {side.nearest}")
    return found
