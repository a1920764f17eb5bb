"""`plumb resume`: the end of `plumb suspend`, and of the hold that a rollback leaves."""

from __future__ import annotations

import click

from reconciler.cli.output import output_option, show_json
from reconciler.cli.session import Session, pass_session


@click.command("resume")
@output_option
@pass_session
def command(session: Session, output: str) -> None:
    """Tell the daemon to follow its branch again, after `plumb suspend` or `plumb rollback`.

    \b
    Examples:
      plumb resume
    """
    answer = session.client().post("/v1/resume", {})
    if output == "json":
        show_json(answer)
    else:
        click.echo("resumed")
