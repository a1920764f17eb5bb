"""Traces for programs. Field names are stable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.compile.cookies import RuleInfo
from reconciler.verdict import wording
from reconciler.verdict.explanation import EntryReason, RuleReason, SideReason
from reconciler.verdict.trace import Trace, Who


def to_json(one: Trace) -> dict[str, Any]:
    return {
        "commit": one.commit,
        "from": _who(one.source),
        "to": _who(one.destination),
        "port": str(one.port),
        "verdict": one.verdict,
        "egress": _side(one.egress),
        "ingress": _side(one.ingress),
    }


def verdict_of(traces: Sequence[Trace]) -> str:
    """The one verdict of all of them, or `mixed`."""
    found = {one.verdict for one in traces}
    return found.pop() if len(found) == 1 else "mixed"


def _who(who: Who) -> dict[str, Any]:
    return {
        "name": who.name,
        "identity": who.identity or None,
        "labels": wording.labels(who.labels),
        "note": who.note,
    }


def _side(side: SideReason | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "verdict": side.side.word.value,
        "enforced": side.is_enforced,
        "why": side.enforced.value,
        "audited": side.side.audited,
        "policy_audit_mode": side.audit,
        "by_default": side.by_default,
        "decided_by": _info(side.decided) if side.decided else None,
        "isolated_by": [_info(rule.info) for rule in side.rules if rule.isolates and rule.counts],
        "nearest_miss": _entry(side.nearest) if side.nearest else None,
        "rules": [_rule(rule) for rule in side.rules],
    }


def _rule(rule: RuleReason) -> dict[str, Any]:
    return {
        **_info(rule.info),
        "counts": rule.counts,
        "audit": rule.audit,
        "isolates": rule.isolates,
        "requires": list(rule.requires),
        "entries": [_entry(entry) for entry in rule.entries],
    }


def _entry(entry: EntryReason) -> dict[str, Any]:
    return {
        **_info(entry.info),
        "action": entry.action.value,
        "peers": entry.peers,
        "ports": entry.ports,
        "matches": entry.matches,
        "misses": [one.value for one in entry.misses],
        "decides": entry.decides,
    }


def _info(info: RuleInfo) -> dict[str, Any]:
    """As events name a rule."""
    origin = info.origin
    return {
        "reference": info.reference,
        "field": info.field,
        "path": origin.path,
        "line": origin.line,
        "commit": origin.commit,
    }
