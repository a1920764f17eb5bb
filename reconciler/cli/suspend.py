"""`plumb suspend`: hands off this host."""

from __future__ import annotations

import click

from reconciler.cli.output import output_option, show_json
from reconciler.cli.session import Session, pass_session


@click.command("suspend")
@click.argument("reason")
@output_option
@pass_session
def command(session: Session, reason: str, output: str) -> None:
    """Tell the daemon to change nothing more, because of REASON. What is enforced stays enforced.

    \b
    Examples:
      plumb suspend "ticket 4711: capturing on veth"
    """
    answer = session.client().post("/v1/suspend", {"reason": reason})
    if output == "json":
        show_json(answer)
    else:
        click.echo("suspended; to go on: plumb resume")
