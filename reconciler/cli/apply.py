"""`plumb apply`: exactly a plan that was kept, or a commit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from reconciler.cli.output import counts_text, output_option, show_json
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session
from reconciler.errors import UsageError


@click.command("apply")
@click.argument("what", metavar="[PLAN|REVISION]", required=False)
@output_option
@pass_session
def command(session: Session, what: str | None, output: str) -> None:
    """Make this host as a plan or a commit says, or leave it as it is.

    A name of an existing file (or `-`, standard input) is a plan of `plumb plan --out`: exactly that is done, and it
    is refused if the host has changed since. Anything else is a revision; without one, the followed branch. A commit
    that is not the branch's stays: the branch's is held back until a newer one comes.

    \b
    Examples:
      plumb plan --out next.plan && plumb apply next.plan
      plumb apply main~1
    """
    plan = _plan(what)
    with session.backend() as backend, progress("applying"):
        answer = backend.apply(plan) if plan is not None else backend.converge(what)
    if output == "json":
        show_json(answer)
    elif answer["changed"]:
        counts = counts_text(answer["counts"])
        click.echo(f"{answer['commit'][:12]} applied in {answer['duration_ms']:.0f} ms: {counts}")
    else:
        click.echo(f"{answer['commit'][:12]}: nothing to change")
    if output == "text":
        for note in answer["notes"]:
            click.echo(click.style(note, "yellow"))
    if output == "text" and answer["held"]:
        click.echo(f"{answer['held'][:12]} of the branch is held back until a newer commit comes, or: plumb resume")


def _plan(what: str | None) -> dict[str, Any] | None:
    """The plan that is in the file, None if `what` is no file."""
    if what is None or (what != "-" and not Path(what).is_file()):
        return None
    try:
        plan = json.loads(sys.stdin.read() if what == "-" else Path(what).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{what}: cannot be read as a plan: {error}", remedy="make one: plumb plan --out FILE"
        ) from error
    if not isinstance(plan, dict):
        raise UsageError(f"{what} holds no plan", remedy="make one: plumb plan --out FILE")
    return plan
