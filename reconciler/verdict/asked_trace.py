"""Traces as people ask for them: both ends and the port in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.errors import UsageError
from reconciler.model.policy_test import DestinationPort, parse_port
from reconciler.model.snapshot import Snapshot
from reconciler.verdict.case import CaseError
from reconciler.verdict.commit_world import cluster_world
from reconciler.verdict.parties import Known, parse_party
from reconciler.verdict.trace import Trace
from reconciler.verdict.trace_json import to_json, verdict_of
from reconciler.verdict.trace_text import to_text

MOST = 32


def traces(snapshot: Snapshot, source: str, destination: str, port: str, known: Known | None = None) -> list[Trace]:
    """One for each two identities that the ends stand for; see `parse_party` and `parse_port` for the words.

    `known`: what a host has allocated for this very commit. Raises UsageError, CompileError.
    """
    wanted = _port(port)
    try:
        one, other = parse_party(source), parse_party(destination)
        there = cluster_world(snapshot, (one, other), known)
        flows = there.flows(one, other, wanted)
    except CaseError as error:
        raise UsageError(str(error), remedy=error.remedy) from error
    if len(flows) > MOST:
        raise UsageError(f"{source} and {destination} stand for {len(flows)} flows, over {MOST}: name fewer")
    return [there.trace(flow) for flow in flows]


def answer(found: Sequence[Trace]) -> dict[str, Any]:
    """As the API and `plumb trace -o json` give them, and as text."""
    return {
        "commit": found[0].commit,
        "verdict": verdict_of(found),
        "traces": [to_json(one) for one in found],
        "text": "\n\n".join(map(to_text, found)),
    }


def _port(text: str) -> DestinationPort:
    port = parse_port(text)
    if port is None:
        raise UsageError(f'port "{text}" is none like 80/tcp, 53/udp, icmp/8 or icmpv6/128')
    return port
