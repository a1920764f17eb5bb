"""`plumb lab`: a cluster of namespaces on this machine, from a policy repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from reconciler.cli.output import output_option, show_json, show_rows
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session
from reconciler.errors import UsageError

_DEFAULT_NAME = "plumb"

name_option = click.option("--name", metavar="NAME", help="Which lab, if --node does not tell.")


@click.group("lab")
def command() -> None:
    """Run a cluster of namespaces on this machine, from a policy repository.

    Each Node becomes a network namespace with its own daemon, each Workload gets its network namespace, and an
    underlay joins the hosts; if the Cluster's store is etcd, its servers run there. Needs root. Nothing that a lab
    did not make is touched.

    \b
    Examples:
      plumb init policies --bare policies.git && plumb lab up policies.git
      plumb lab exec client -- ping -c1 10.44.0.2
      plumb --node alpha status
      plumb lab down
    """


@command.command("up")
@click.argument("repository", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@click.option("--name", metavar="NAME", default=_DEFAULT_NAME, show_default=True, help="Begins the hosts' namespaces.")
@output_option
def up(repository: Path, name: str, output: str) -> None:
    """Make a lab from REPOSITORY (a work tree or a bare repository), and wait until it has converged.

    Again on a lab that is up, it adds the hosts and workloads that the repository has by now.

    \b
    Examples:
      plumb lab up policies.git
      plumb lab up policies --name second
    """
    from reconciler.lab import lifecycle, overview, policy_repository

    followed = policy_repository.follow(repository)
    with progress("making the lab"):
        lab = lifecycle.up(name, followed, lambda line: click.echo(line, err=output == "json"))
    _show(overview.overview(lab), output)


@command.command("down")
@name_option
@click.option("--all", "all_labs", is_flag=True, help="Every lab on this machine.")
@pass_session
def down(session: Session, name: str | None, all_labs: bool) -> None:
    """Remove a lab: its processes (whatever runs inside its namespaces), namespaces, pins and files.

    Again, or after a crash, it removes what is left. No lab at all is success.

    \b
    Examples:
      plumb lab down
      plumb lab down --all
    """
    from reconciler.lab import lifecycle, registry

    chosen = (
        registry.labs() if all_labs else [registry.the(name, session.node)] if registry.labs() and _up(name) else []
    )
    for lab in chosen:
        with progress("removing the lab"):
            lifecycle.down(lab, click.echo)
    if not chosen:
        registry.tidy()
        click.echo("no lab is up" if name is None else f"no lab {name} is up")


@command.command("exec", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("place", metavar="NODE|WORKLOAD|outside")
@click.argument("arguments", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def execute(session: Session, name: str | None, place: str, arguments: tuple[str, ...]) -> None:
    """Run a command in the network namespace of a node or a workload; its exit code is the command's.

    \b
    Examples:
      plumb lab exec client -- nc -zw1 10.44.0.2 80
      plumb lab exec alpha -- ip route
      plumb lab exec outside -- ping -c1 10.44.0.2
    """
    from reconciler.kernel import netns
    from reconciler.lab import places, registry

    path = places.namespace(registry.the(name, session.node), place)
    with netns.inside(path):
        try:
            os.execvp(arguments[0], arguments)
        except OSError as error:
            raise UsageError(f"{arguments[0]}: {error.strerror}") from error


@command.command("status")
@name_option
@output_option
@pass_session
def status(session: Session, name: str | None, output: str) -> None:
    """Show the hosts of a lab, what their daemons say, and where the workloads are.

    \b
    Examples:
      plumb lab status
    """
    from reconciler.lab import overview, registry

    _show(overview.overview(registry.the(name, session.node)), output)


@command.command("demo")
@click.option("--keep", is_flag=True, help="Leave the lab up at the end.")
@click.option("--name", metavar="NAME", default="demo", show_default=True, help="The demo's lab.")
def demo(keep: bool, name: str) -> int:
    """Show the main job on this machine, in under a minute: from `git push` to real packets, and back.

    \b
    Examples:
      plumb lab demo
      plumb lab demo --keep
    """
    from reconciler.lab.demo import run

    return run(keep, name)


def _up(name: str | None) -> bool:
    from reconciler.lab import registry

    return name is None or registry.find(name) is not None


def _show(found: dict[str, Any], output: str) -> None:
    if output == "json":
        show_json(found)
        return
    click.echo(f"lab {found['name']} follows {found['ref']} of {found['repository']}")
    hosts = [{**host, "commit": host["commit"][:12]} for host in found["hosts"]]
    show_rows(hosts, ("node", "state", "commit", "addresses", "namespace", "error"), empty="no hosts")
    show_rows(found["workloads"], empty="no workloads")
