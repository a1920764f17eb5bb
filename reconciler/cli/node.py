"""`plumb node`: the hosts of the cluster as this one knows them."""

from __future__ import annotations

import click

from reconciler.cli.output import output_option, show_json, show_rows
from reconciler.cli.session import Session, pass_session

_COLUMNS = ("node", "state", "addresses", "cidrs", "endpoints", "version", "since")


@click.group("node")
def command() -> None:
    """The hosts of the cluster: what manifests and they themselves say of them.

    \b
    Examples:
      plumb node list
      plumb node forget gamma
    """


@command.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List them. A host that is `silent` has no daemon that the store has heard of."""
    with session.backend() as backend:
        found = backend.nodes()
    if output == "json":
        show_json(found)
    else:
        show_rows(found, _COLUMNS, empty="no commit has been applied here yet")


@command.command("forget")
@click.argument("name")
@pass_session
def forget(session: Session, name: str) -> None:
    """Take back what host NAME has said of itself, so that another one can have its name at once.

    A host that is alive says it again. One that is gone is forgotten anyway after `spec.store.ttl` of the Cluster.
    If it is silent and the applied commit has no Node NAME, its CIDRs, addresses and results are given back too;
    a few minutes later that happens by itself.
    """
    with session.backend() as backend:
        keys = backend.forget(name)["keys"]
    click.echo(f"{name} is forgotten ({keys} keys of the store)" if keys else f"the store has nothing of {name}")
