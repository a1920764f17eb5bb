"""`plumb monitor`: drops and verdicts as they happen, with names and rules; or the kernel's own events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import islice
from typing import Any

import click

from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session
from reconciler.errors import UsageError

_COLOURS = {"drop": "red", "verdict": "green"}


@click.command("monitor")
@click.option("--type", "types", type=click.Choice(["drop", "verdict"]), multiple=True, help="Only these.")
@click.option("--from", "source", metavar="WORKLOAD", help="Only packets that it sent: namespace/name, or an address.")
@click.option("--to", "destination", metavar="WORKLOAD", help="Only packets that were meant for it.")
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many.")
@click.option("--kernel", metavar="EXPR", help="The kernel's events that match, not ours; see the last examples.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="A line of text or an object each."
)
@pass_session
def command(
    session: Session,
    types: tuple[str, ...],
    source: str | None,
    destination: str | None,
    count: int | None,
    kernel: str | None,
    output: str,
) -> None:
    """Follow what the datapath drops and decides on this host, until interrupted.

    With --kernel a filter is compiled into a tracing program and run in the kernel for as long as this command lives.

    \b
    Examples:
      plumb monitor --type drop
      plumb monitor --from default/client --to default/web -o json
      plumb monitor --kernel 'drop where protocol == tcp and dport == 80'
      plumb monitor --kernel 'retransmit where daddr in 10.44.0.0/24'
    """
    if kernel is not None:
        _follow_kernel(kernel, count, output)
        return
    _refuse_unknown(session, source, destination)
    chosen = (event for event in _events(session, types) if _is(event, "source", source))
    chosen = (event for event in chosen if _is(event, "destination", destination))
    for event in islice(chosen, count):
        text = event.pop("text")
        if output == "json":
            click.echo(json.dumps(event))
        else:
            click.echo(text.replace(event["type"], click.style(event["type"], _COLOURS[event["type"]]), 1))


def _events(session: Session, types: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Says on standard error how many were lost on the way to us."""
    for event in session.client().stream("/v1/events", types=",".join(types or _COLOURS)):
        if event["type"] == "lost":
            click.echo(f"{event['count']} events came faster than they were read and are lost", err=True)
        else:
            yield event


def _refuse_unknown(session: Session, *names: str | None) -> None:
    """Raises UsageError: whoever waits for somebody who is not there waits for ever."""
    wanted = [name for name in names if name is not None and not _is_address(name)]
    if not wanted:
        return
    client = session.client()
    known = {one["workload"] for one in client.get("/v1/endpoints")}
    known.update(name for one in client.get("/v1/identities") for name in one["workloads"])
    for name in wanted:
        if not any(name in (one, one.rpartition("/")[2]) for one in known):
            from reconciler.source.phrases import nearest

            near = nearest(name, sorted(known if "/" in name else {one.rpartition("/")[2] for one in known}))
            raise UsageError(f"no workload is called {name}: {near}", remedy="see which there are: plumb endpoint list")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is(event: dict[str, Any], end: str, wanted: str | None) -> bool:
    workload, address = event[end]["workload"], event[end]["address"]
    return wanted is None or wanted in (workload, workload.rpartition("/")[2], address)


def _follow_kernel(expression: str, count: int | None, output: str) -> None:
    from reconciler.observe.kernel_monitor import KernelMonitor

    with progress("compiling the filter"):
        monitor = KernelMonitor(expression)
    with monitor:
        for event in islice(monitor, count):
            click.echo(json.dumps(event.to_json()) if output == "json" else str(event))
        if monitor.lost:
            click.echo(f"{monitor.lost} more matched and did not fit", err=True)
