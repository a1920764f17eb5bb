"""`plumb status --cluster`: a line for each host, those that are behind marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from reconciler.cli.output import columns, text

COLOURS = {
    "converged": "green",
    "converging": "yellow",
    "held": "yellow",
    "suspended": "yellow",
    "refused": "red",
    "degraded": "red",
}
_HEAD = ("NODE", "COMMIT", "STATE", "SINCE", "VERSION", "LAST SEEN", "")


def show_cluster(answer: Mapping[str, Any]) -> None:
    nodes = answer["nodes"]
    lines = columns([_HEAD, *(_cells(node) for node in nodes)]).splitlines()
    click.echo(lines[0])
    for node, line in zip(nodes, lines[1:], strict=True):
        click.echo(click.style(line, "yellow" if node["behind"] else COLOURS.get(node["state"])))
    behind = sum(node["behind"] for node in nodes)
    where = f"{len(nodes) - behind} of {len(nodes)} nodes run" if behind else f"all {len(nodes)} nodes run"
    click.echo(f"{where} {answer['newest'][:12]}{_pushed(answer['pushed'])}")


def _pushed(push: Mapping[str, Any] | None) -> str:
    return f", last pushed to {push['host']} at {push['time']}" if push else ""


def _cells(node: Mapping[str, Any]) -> tuple[str, ...]:
    if not node["seen"]:
        return (node["node"], "-", "unknown", "-", "-", "never", "it never reported")
    told = ("away" if node["away"] else node["state"], node["since"], node["version"], node["seen"])
    return (node["node"], text(node["commit"][:12]), *map(text, told), _remark(node))


def _remark(node: Mapping[str, Any]) -> str:
    if not node["known"]:
        return "the commit has no such node"
    return "; ".join(filter(None, [_behind(node), *(f"does not reach {one}" for one in node["unreachable"])]))


def _behind(node: Mapping[str, Any]) -> str:
    if not node["behind"]:
        return str(node["error"]) if node["result"] in ("failed", "refused") else ""
    if node["looked_at"] == node["commit"]:
        return "behind"
    return f"behind: {node['result']} {node['looked_at'][:12]}" + (f": {node['error']}" if node["error"] else "")
