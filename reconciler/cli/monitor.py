"""`plumb monitor`: drops and verdicts as they happen, with names and rules; or the kernel's own events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import click

from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session

_COLOURS = {"drop": "red", "verdict": "green"}
_COMMIT_DIGITS = 8


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
    events = session.client().stream("/v1/events", types=",".join(types or _COLOURS))
    chosen = (one for one in events if _is(one["source"], source) and _is(one["destination"], destination))
    for event in islice(chosen, count):
        click.echo(json.dumps(event) if output == "json" else _line(event))


def _is(party: dict[str, Any], wanted: str | None) -> bool:
    workload = party["workload"]
    return wanted is None or wanted in (workload, workload.rpartition("/")[2], party["address"])


def _line(event: dict[str, Any]) -> str:
    """One line in local time: who, to whom, what became of it, and which rule of which file decided."""
    when = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    kind = click.style(f"{event['type']:<7}", _COLOURS.get(event["type"]))
    ends = f"{_party(event['source'], 0)} -> {_party(event['destination'], event['destination']['port'])}"
    what = " ".join(_packet(event))
    return f"{when} {kind} {ends} {what}  {_because(event)}"


def _party(party: dict[str, Any], port: int) -> str:
    """`default/web:80 (id 257)`; for what is no workload its address and its reserved label."""
    address = f"[{party['address']}]" if port and ":" in party["address"] else party["address"]
    shown = (party["workload"] or address) + (f":{port}" if port else "")
    reserved = [label.removeprefix("reserved:") for label in party["labels"] or () if label.startswith("reserved:")]
    if reserved and not party["workload"]:
        return f"{shown} ({reserved[-1]})"
    return f"{shown} (id {party['identity']})" if party["identity"] else shown


def _packet(event: dict[str, Any]) -> Iterator[str]:
    yield event["protocol"]
    if "icmp" in event:
        yield f"type {event['icmp']['type']} code {event['icmp']['code']}"
    if event["reply"]:
        yield "reply"


def _because(event: dict[str, Any]) -> str:
    rule = event["rule"]
    if not rule:
        return str(event["reason"])
    if "path" not in rule:
        return f"{event['reason']} by a rule that is no longer there (cookie {rule['cookie']:08x})"
    named = f"{rule['reference']} {rule['field']}".rstrip()
    return f"{event['reason']} by {named}  {rule['path']}:{rule['line']} @ {rule['commit'][:_COMMIT_DIGITS]}"


def _follow_kernel(expression: str, count: int | None, output: str) -> None:
    from reconciler.observe.kernel_monitor import KernelMonitor

    with progress("compiling the filter"):
        monitor = KernelMonitor(expression)
    with monitor:
        for event in islice(monitor, count):
            click.echo(json.dumps(event.to_json()) if output == "json" else str(event))
        if monitor.lost:
            click.echo(f"{monitor.lost} more matched and did not fit", err=True)
