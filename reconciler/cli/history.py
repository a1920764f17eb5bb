"""`plumb history`: what was applied on this host."""

from __future__ import annotations

from typing import Any

import click

from reconciler.cli.output import counts_text, output_option, show_json, show_rows
from reconciler.cli.session import Session, pass_session


@click.command("history")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
@click.option("--drift", is_flag=True, help="What was changed behind our back since the daemon began, and by whom.")
@output_option
@pass_session
def command(session: Session, limit: int, drift: bool, output: str) -> None:
    """List the commits that were applied on this host and those that were taken back, newest first.

    \b
    Examples:
      plumb history
      plumb history -n 3 -o json
      plumb history --drift
    """
    if drift:
        reports = session.client().get("/v1/drift", limit=limit)
        if output == "json":
            show_json(reports)
        else:
            show_rows([_drift_row(report) for report in reports], empty="nothing was changed behind our back")
        return
    with session.backend() as backend:
        entries = backend.history(limit)
    if output == "json":
        show_json(entries)
    else:
        show_rows([_row(entry) for entry in entries], empty="nothing was applied yet")


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": entry["time"][:19].replace("T", " "),
        "commit": entry["commit"][:12],
        "before": entry["base"][:12],
        "result": entry["result"],
        "ms": f"{entry['duration_ms']:.0f}",
        "rows": "; ".join((entry["reason"] or counts_text(entry["counts"]), *entry["notes"])),
    }


def _drift_row(report: dict[str, Any]) -> dict[str, Any]:
    took = report["repaired_ms"]
    return {
        "time": report["time"][:19].replace("T", " "),
        "table": report["table"],
        "what": report["what"],
        "by": _culprit(report),
        "repaired": "not yet" if took is None else f"{took:.1f} ms",
        "keys": report["keys"],
    }


def _culprit(report: dict[str, Any]) -> str:
    """One that ended before it could be looked at may have left nothing but its number."""
    by = report["by"]
    if not by:
        return f"unknown: {report['unknown_because']}"
    if by["ended"] and by["command"] == "?":
        return f"pid {by['pid']}, which has ended"
    return f"{by['command']} (pid {by['pid']}, {by['user']})"
