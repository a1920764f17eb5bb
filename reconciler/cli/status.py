"""`plumb status`: what this host is and runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from reconciler.cli.output import absent_lines, output_option, show_fields, show_json
from reconciler.cli.session import Session, pass_session

_COLOURS = {
    "converged": "green",
    "converging": "yellow",
    "held": "yellow",
    "suspended": "yellow",
    "refused": "red",
    "degraded": "red",
}


@click.command("status")
@output_option
@pass_session
def command(session: Session, output: str) -> None:
    """Show which commit this host runs, whether it is converged, and what it holds.

    \b
    Examples:
      plumb status
      plumb --node alpha status -o json
    """
    with session.backend() as backend:
        answer = backend.status()
    if output == "json":
        show_json(answer)
    else:
        show_fields(_fields(answer))


def _fields(status: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """In the order in which people ask; what is empty, or only a daemon knows, is left out."""
    yield "node", status["node"]
    since = f", since {status['since']}" if status.get("since") else ""
    yield "commit", f"{(status['commit'] or 'none')[:12]} of {status['ref']} in {status['repository']}{since}"
    if "state" in status:
        yield "state", click.style(status["state"], _COLOURS.get(status["state"])) + _last_pass(status)
    if status.get("last_error"):
        yield "error", status["last_error"]
    for line in absent_lines(status.get("absent", ())):
        yield "absent", line
    if status.get("unfinished"):
        yield "unfinished", "a transaction was interrupted; the next apply, or start of the daemon, undoes it first"
    if status.get("last_result"):
        yield "last", f"{status['last_result']} {status['last_time']} {status['last_reason']}".rstrip()
    if status.get("suspended"):
        yield "suspended", status["suspended"]
    if status.get("held"):
        yield "held", f"{status['held'][:12]} is not applied again until plumb resume"
    for name in ("endpoints", "policies", "tables", "attribution"):
        if name in status:
            yield name, status[name]
    if "drift_repairs" in status:
        yield "drift", f"{status['drift_repairs']} repaired"
    yield "daemon", status.get("daemon") or "none answers; this is what the host itself says"


def _last_pass(status: dict[str, Any]) -> str:
    took = status.get("last_pass_ms")
    return f", last pass {took:.1f} ms" if took is not None else ""
