"""`plumb trace`: what policy makes of one flow, and why, rule by rule."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from reconciler.cli.backend import Answer
from reconciler.cli.output import output_option, show_json
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session

_COLOURS = {"allowed": "green", "denied": "red", "redirected": "yellow"}


@click.command("trace")
@click.option("--from", "source", metavar="WHO", required=True, help="Who opens the flow.")
@click.option("--to", "destination", metavar="WHO", required=True, help="Whom it is opened to.")
@click.option("--port", metavar="PORT/PROTOCOL", required=True, help="80/tcp, 53/udp, icmp/8, icmpv6/128.")
@click.option("--at", "revision", metavar="REVISION", help="At this commit, not at the one that is applied.")
@click.option(
    "--repository",
    metavar="REPOSITORY",
    type=click.Path(path_type=Path),
    help="Ask a commit of it (HEAD by default) and no host; needs neither root nor a daemon.",
)
@output_option
@pass_session
def command(
    session: Session,
    source: str,
    destination: str,
    port: str,
    revision: str | None,
    repository: Path | None,
    output: str,
) -> None:
    """Show both directions of a flow: every rule, entry by entry, what decides, and what all but matched.

    WHO is a workload (namespace/name, or a name that is unique), labels (every workload that has them, or one as if it
    were there), an address, host, remote-node, world, or the number of an identity.

    \b
    Examples:
      plumb trace --from client --to default/web --port 80/tcp
      plumb trace --from app=client,namespace=default --to web --port 80/tcp --at feature/web
      plumb trace --from 203.0.113.9 --to web --port icmp/8
      plumb trace --from world --to web --port 443/tcp --repository policies
    """
    with progress("tracing"):
        if repository is not None:
            found = _at_commit(repository, revision or "HEAD", source, destination, port)
        else:
            with session.backend() as backend:
                found = backend.trace(source, destination, port, revision)
    text = found.pop("text")
    if output == "json":
        show_json(found)
        return
    for line in text.splitlines():
        click.echo(_coloured(line))


def _at_commit(repository: Path, revision: str, source: str, destination: str, port: str) -> Answer:
    from reconciler.source.loading import Cache, load
    from reconciler.verdict.asked_trace import answer, traces

    with closing(Cache()) as cache:
        snapshot = load(repository, revision, cache)
    return answer(traces(snapshot, source, destination, port))


def _coloured(line: str) -> str:
    """The verdict of a flow, which ends a line that is not indented."""
    head, colon, verdict = line.rpartition(": ")
    return f"{head}{colon}{click.style(verdict, _COLOURS[verdict])}" if verdict in _COLOURS else line
