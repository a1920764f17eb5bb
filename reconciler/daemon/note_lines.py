"""What the notes of commits say: a line for each host that ran the commit, runs it, or could not.

    alpha: runs it since 2026-01-01T10:00:00+00:00
    beta: ran it from 2026-01-01T10:00:00+00:00 until 2026-01-01T11:00:00+00:00
    gamma: refused at 2026-01-01T10:00:01+00:00: 10.0.0.0/30 of gamma is used up

Lines that look otherwise are somebody else's and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from reconciler.store.reports import Report

_LINE = re.compile(
    r"(?P<node>[^\s:]+): (?P<what>runs it since|ran it from|refused at|failed at|held at|suspended at) .*"
)
_RUNS = "runs it since"
_LONGEST = 300


def merged(notes: Mapping[str, str], reports: Iterable[Report]) -> dict[str, str]:
    """commit -> new text, of those commits whose note has to change. The same reports change nothing twice."""
    changed: dict[str, str] = {}
    running = _running(notes)

    def put(commit: str, node: str, line: str) -> None:
        before = changed.get(commit, notes.get(commit, ""))
        after = _with(before, node, line)
        if after != before:
            changed[commit] = after

    for report in reports:
        for commit, line in running.get(report.node, {}).items():
            if commit != report.running and report.running:
                since = line.partition(f" {_RUNS} ")[2]
                put(commit, report.node, f"{report.node}: ran it from {since} until {report.since}")
        if report.running:
            put(report.running, report.node, f"{report.node}: {_RUNS} {report.since}")
        if report.commit != report.running:
            put(report.commit, report.node, _not_run(report))
    return changed


def _running(notes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """node -> commit -> the line by which it runs that."""
    found: dict[str, dict[str, str]] = {}
    for commit, text in notes.items():
        for line in text.splitlines():
            match = _LINE.fullmatch(line)
            if match and match["what"] == _RUNS:
                found.setdefault(match["node"], {})[commit] = line
    return found


def _not_run(report: Report) -> str:
    error = " ".join(report.error.split())[:_LONGEST]
    return f"{report.node}: {report.result} at {report.time}" + (f": {error}" if error else "")


def _with(text: str, node: str, line: str) -> str:
    """Foreign lines first, then the hosts in order."""
    foreign, ours = [], {}
    for one in text.splitlines():
        match = _LINE.fullmatch(one)
        if match:
            ours[match["node"]] = one
        else:
            foreign.append(one)
    ours[node] = line
    return "".join(f"{one}\n" for one in [*foreign, *(ours[name] for name in sorted(ours))])
