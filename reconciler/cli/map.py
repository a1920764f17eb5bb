"""`plumb map`: the rows of any table of this host, those of BPF maps among them."""

from __future__ import annotations

from typing import Any

import click

from reconciler.cli.output import output_option, show_json, show_rows
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session

_COMMIT_DIGITS = 8


@click.group("map")
def command() -> None:
    """Everything that this host holds for us, as rows of tables.

    \b
    Examples:
      plumb map list
      plumb map show policy
      plumb map show routes -o json
    """


@command.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the tables and how many rows each has."""
    with session.backend() as backend:
        counts = backend.tables()
    if output == "json":
        show_json(counts)
    else:
        show_rows([{"table": name, "rows": count} for name, count in counts.items()], empty="there are no tables")


@command.command("show")
@click.argument("table")
@output_option
@pass_session
def show(session: Session, table: str, output: str) -> None:
    """Show the live rows of TABLE."""
    with session.backend() as backend, progress("reading"):
        rows = backend.rows(table)
    if output == "json":
        show_json(rows)
    else:
        shown = [_row(row) for row in rows]
        names = dict.fromkeys(name for row in shown for name in row if name != "origin")
        show_rows(shown, (*names, "origin"), empty=f"{table} has no rows")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """The names of the key's and the row's fields become columns, if they have names."""
    key, value, origin = row["key"], row["row"], row["origin"]
    shown = {
        **(key if isinstance(key, dict) else {"key": key}),
        **(value if isinstance(value, dict) else {"value": value}),
    }
    return {**shown, "origin": _place(origin) if origin else ""}


def _place(origin: dict[str, Any]) -> str:
    """As events have it: `policies/web.yaml:12 @ 1a2b3c4d`."""
    return f"{origin['path']}:{origin['line']} @ {origin['commit'][:_COMMIT_DIGITS]}"
