"""`plumb endpoint`: the workloads of this host as the datapath knows them."""

from __future__ import annotations

import click

from reconciler.cli.output import output_option, show_fields, show_json, show_rows
from reconciler.cli.session import Session, pass_session
from reconciler.errors import UsageError

_COLUMNS = ("workload", "identity", "addresses", "device", "netns", "policy", "labels")
_EVERYWHERE = ("workload", "node", "identity", "addresses")


@click.group("endpoint")
def command() -> None:
    """The workloads of this host: addresses, identity, device.

    \b
    Examples:
      plumb endpoint list
      plumb endpoint list --all
      plumb endpoint show default/web
    """


@command.command("list")
@click.option("--all", "everywhere", is_flag=True, help="Those of other hosts too, as far as this one knows them.")
@output_option
@pass_session
def list_(session: Session, everywhere: bool, output: str) -> None:
    """List them."""
    with session.backend() as backend:
        found = backend.endpoints(everywhere)
    if output == "json":
        show_json(found)
    else:
        columns = _EVERYWHERE if everywhere else _COLUMNS
        show_rows(found, columns, empty="this host has no workloads")


@command.command("show")
@click.argument("workload")
@output_option
@pass_session
def show(session: Session, workload: str, output: str) -> None:
    """Show WORKLOAD (namespace/name, or a name that is unique here)."""
    with session.backend() as backend:
        found = backend.endpoints()
    chosen = [one for one in found if workload in (one["workload"], one["workload"].rpartition("/")[2])]
    if len(chosen) != 1:
        there = ", ".join(one["workload"] for one in chosen or found) or "none"
        raise UsageError(f"{'several workloads are' if chosen else 'no workload is'} called {workload}: {there}")
    if output == "json":
        show_json(chosen[0])
    else:
        show_fields(chosen[0].items())
