"""Why this host lets a flow pass or does not, by what it has allocated."""

from __future__ import annotations

from typing import Any

from reconciler.errors import UsageError
from reconciler.host.host import Host
from reconciler.host.target import Target
from reconciler.verdict.asked_trace import answer, traces
from reconciler.verdict.parties import Known


def known_of(target: Target) -> Known:
    return Known(target.facts, target.desired.identities)


def flow_trace(host: Host, source: str, destination: str, port: str, revision: str | None) -> dict[str, Any]:
    """At a commit, or (without `revision`) at the one that is applied. Raises UsageError and what `Host.aim` raises."""
    target = host.aim(revision, preview=True) if revision else host.target
    if target is None:
        raise UsageError("nothing was applied to this host yet", remedy="name a commit: plumb trace --at REVISION")
    return answer(traces(target.snapshot, source, destination, port, known_of(target)))
