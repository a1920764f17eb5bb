"""`plumb service`: Services as this host serves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from reconciler.cli.output import output_option, show_fields, show_json, show_rows
from reconciler.cli.session import Session, pass_session
from reconciler.errors import UsageError

_COLUMNS = ("service", "type", "addresses", "external", "ports", "backends", "origin")
_NONE = "this host serves no Services; the Cluster says whether it does (spec.services)"


@click.group("service")
def command() -> None:
    """Services: their frontends, and the backends behind them as this host sees them.

    A headless one has no frontends: nothing is balanced, and clients find its backends by themselves.

    \b
    Examples:
      plumb service list
      plumb service show shop/web
      plumb service show web -o json
    """


@command.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List them; PORTS are `port:node port`, BACKENDS the workloads and the addresses of EndpointSlices that get new
    flows, of all.
    """
    with session.backend() as backend:
        found = backend.services()
    if output == "json":
        show_json(found)
    else:
        show_rows([_line(one) for one in found], _COLUMNS, empty=_NONE)


@command.command("show")
@click.argument("service")
@output_option
@pass_session
def show(session: Session, service: str, output: str) -> None:
    """Show SERVICE (namespace/name, or a name that is unique)."""
    with session.backend() as backend:
        found = backend.services()
    chosen = [one for one in found if service in (one["service"], one["service"].rpartition("/")[2])]
    if len(chosen) != 1:
        there = ", ".join(one["service"] for one in chosen or found) or "none"
        raise UsageError(f"{'several services are' if chosen else 'no service is'} called {service}: {there}")
    if output == "json":
        show_json(chosen[0])
        return
    _show(chosen[0])


def _line(one: Mapping[str, Any]) -> dict[str, Any]:
    backends = [each for port in one["ports"] for each in port["backends"]]
    active = {_endpoint(each) for each in backends if each["new_flows"]}
    return {
        **one,
        "type": _type(one),
        "ports": [_numbers(port) for port in one["ports"]],
        "backends": f"{len(active)}/{len({_endpoint(each) for each in backends})}",
        "origin": _place(one["origin"]),
    }


def _endpoint(backend: Mapping[str, Any]) -> str:
    """Who it is, at whatever port and, of a workload, in whatever family."""
    source = str(backend["source"])
    return source if source.startswith("Workload ") else str(backend["backend"]).rpartition(":")[0]


def _numbers(port: Mapping[str, Any]) -> str:
    number, _, protocol = port["port"].partition("/")
    return f"{number}:{port['node_port']}/{protocol}" if port["node_port"] else str(port["port"])


def _show(one: Mapping[str, Any]) -> None:
    health = one["health"]
    check = (
        f"{health['kind']} every {health['interval_s']:g} s; all unhealthy: {one['all_unhealthy']}" if health else None
    )
    shown = {
        "service": one["service"],
        "type": _type(one),
        "addresses": one["addresses"],
        "external": one["external"],
        "algorithm": None if one["headless"] else one["algorithm"],
        "affinity": f"{one['affinity_s']} s" if one["affinity_s"] else None,
        "health check": check,
        "origin": _place(one["origin"]),
    }
    show_fields(shown.items())
    for port in one["ports"]:
        click.echo()
        named = f" ({port['name']})" if port["name"] else ""
        click.echo(click.style(f"port {port['port']}{named}", bold=True))
        why = "it is headless" if one["headless"] else "the service has no address"
        show_rows(_without(port["frontends"], "sources"), empty=f"no frontends: {why}")
        click.echo()
        rows = [{**each, "origin": _place(each["origin"])} for each in port["backends"]]
        show_rows(_without(rows, "direct"), empty="no backends")


def _type(one: Mapping[str, Any]) -> str:
    return "headless" if one["headless"] else str(one["type"])


def _without(rows: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Without a column in which no row says anything."""
    every = [dict(row) for row in rows]
    if not any(row[name] for row in every):
        for row in every:
            del row[name]
    return every


def _place(origin: Mapping[str, Any] | None) -> str:
    return f"{origin['path']}:{origin['line']}" if origin else ""
