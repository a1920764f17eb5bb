"""`plumb status`: what this host is and runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from reconciler.cli.cluster_status import COLOURS, show_cluster
from reconciler.cli.output import absent_lines, output_option, printable, show_fields, show_json
from reconciler.cli.session import Session, pass_session
from reconciler.model.cluster import GENEVE_OF_ONE_VERSION


@click.command("status")
@click.option("--cluster", is_flag=True, help="All hosts, by what they told the cluster's store; a line each.")
@output_option
@pass_session
def command(session: Session, cluster: bool, output: str) -> None:
    """Show which commit this host runs, whether it is converged, and what it holds.

    \b
    Examples:
      plumb status
      plumb --node alpha status -o json
      plumb status --cluster
    """
    with session.backend() as backend:
        answer = backend.cluster() if cluster else backend.status()
    if output == "json":
        show_json(answer)
    elif cluster:
        show_cluster(answer)
    else:
        show_fields(_fields(answer))


def _fields(status: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """In the order in which people ask; what is empty, or only a daemon knows, is left out."""
    yield "node", status["node"]
    since = f", since {status['since']}" if status.get("since") else ""
    yield "commit", f"{(status['commit'] or 'none')[:12]} of {status['ref']} in {status['repository']}{since}"
    if "state" in status:
        yield "state", click.style(status["state"], COLOURS.get(status["state"])) + _last_pass(status)
    if health := status.get("health"):
        yield from _health(health)
    if remote := status.get("remote"):
        yield "remote", f"{remote['url']}, last fetched {remote['last_fetched'] or 'never'}"
        if remote["error"]:
            yield "not fetched", f"since {remote['error_since']}: {remote['error']}"
    if status.get("last_error"):
        yield "error", status["last_error"]
    if status.get("last_remedy"):
        yield "next", status["last_remedy"]
    if status.get("store"):
        yield "store", _store(status["store"])
    for line in absent_lines(status.get("absent", ())):
        yield "absent", line
    if status.get("direct_return") == GENEVE_OF_ONE_VERSION:
        yield "direct return", "only over the tunnels' own IP version: the other one in it needs kernel 6.3"
    if status.get("unfinished"):
        yield "unfinished", "a transaction was interrupted; the next apply, or start of the daemon, undoes it first"
    if status.get("last_result"):
        yield "last", f"{status['last_result']} {status['last_time']} {status['last_reason']}".rstrip()
    if status.get("suspended"):
        yield "suspended", printable(status["suspended"])
    if status.get("held"):
        yield "held", f"{status['held'][:12]} is not applied again until plumb resume"
    for name in ("endpoints", "policies", "tables", "attribution"):
        if name in status:
            yield name, status[name]
    if "drift_repairs" in status:
        yield "drift", f"{status['drift_repairs']} repaired"
    yield "daemon", status.get("daemon") or "none answers; this is what the host itself says"


def _health(health: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if health["reachable"]:
        yield "nodes", f"{health['reachable']} reachable"
    for one in health["unreachable"]:
        text = f"{one['node']} by the {one['path']} path, {one['address']}, since {one['since']}"
        yield "unreachable", click.style(text, "red")
    if health["problem"]:
        yield "health", health["problem"]


def _store(store: dict[str, Any]) -> str:
    where = " at " + ", ".join(store["endpoints"]) if store["endpoints"] else ""
    if store["state"] == "connected":
        return f"{store['kind']}{where}, connected since {store['since']}"
    state = click.style(store["state"], "red")
    return f"{state} since {store['since']}: {store['reason']}"


def _last_pass(status: dict[str, Any]) -> str:
    took = status.get("last_pass_ms")
    return f", last pass {took:.1f} ms" if took is not None else ""
