"""`plumb rollback`: an earlier commit again."""

from __future__ import annotations

import click

from reconciler.cli.output import counts_text, output_option, show_json
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session


@click.command("rollback")
@click.argument("commit", required=False)
@output_option
@pass_session
def command(session: Session, commit: str | None, output: str) -> None:
    """Make this host as it was before the last change, or as COMMIT said.

    The commit that is left behind is held: the daemon does not go back to it, but follows a newer one.
    `plumb resume` lifts that.

    \b
    Examples:
      plumb rollback
      plumb rollback 1f3c9ab
    """
    with session.backend() as backend, progress("rolling back"):
        answer = backend.rollback(commit)
    if output == "json":
        show_json(answer)
        return
    counts = counts_text(answer["counts"])
    click.echo(f"back at {answer['commit'][:12]} in {answer['duration_ms']:.0f} ms: {counts}")
