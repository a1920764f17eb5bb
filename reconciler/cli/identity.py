"""`plumb identity`: numbers that packets carry, and the labels they stand for."""

from __future__ import annotations

import click

from reconciler.cli.output import output_option, show_fields, show_json, show_rows
from reconciler.cli.session import Session, pass_session
from reconciler.errors import UsageError


@click.group("identity")
def command() -> None:
    """Identities: one number for each set of labels.

    \b
    Examples:
      plumb identity list
      plumb identity show 256
    """


@command.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List them."""
    with session.backend() as backend:
        found = backend.identities()
    if output == "json":
        show_json(found)
    else:
        show_rows(found, ("identity", "workloads", "labels"), empty="there are no identities")


@command.command("show")
@click.argument("number", type=int)
@output_option
@pass_session
def show(session: Session, number: int, output: str) -> None:
    """Show identity NUMBER."""
    with session.backend() as backend:
        found = [one for one in backend.identities() if one["identity"] == number]
    if not found:
        raise UsageError(f"there is no identity {number}", remedy="plumb identity list")
    if output == "json":
        show_json(found[0])
    else:
        show_fields(found[0].items())
