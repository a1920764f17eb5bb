"""What commands print: JSON for programs, aligned columns and marked lines for people.

Colour is left to click: it strips it where the output is no terminal, and `main` turns it off for NO_COLOR.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

_COLOURS = {"+": "green", "~": "yellow", "-": "red"}
_CELL_LIMIT = 60

output_option: Callable[[Function], Function] = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people or for programs.",
)


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = (), *, empty: str) -> None:
    """A line a row, a column for each of `names` (every field of any row if none); `empty` if there is none.

    Long cells are cut, but for the last column's.
    """
    if not rows:
        click.echo(empty)
        return
    chosen = list(names) or list(dict.fromkeys(name for row in rows for name in row))
    cells = [[*(_cut(text(row.get(name))) for name in chosen[:-1]), text(row.get(chosen[-1]))] for row in rows]
    click.echo(columns([[name.upper() for name in chosen], *cells]))


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Cells aligned to the left, two blanks between columns."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def show_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """`name  value`, a line each."""
    click.echo(columns([[name, text(value)] for name, value in fields]))


def show_plan(rendered: str) -> None:
    """A rendered plan, its rows in the colour of what happens to them."""
    for line in rendered.splitlines():
        colour = _COLOURS.get(line.lstrip()[:1]) if line.startswith("  ") else None
        click.echo(click.style(line, colour) if colour else line)


def show_absent(absent: Sequence[Mapping[str, Any]]) -> None:
    """Workloads that wait for their network namespace, a line each."""
    for line in absent_lines(absent):
        click.echo(click.style(line, "yellow"))


def absent_lines(absent: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{one['path']}:{one['line']}: {one['message']}" for one in absent]


def counts_text(counts: Mapping[str, Any]) -> str:
    """`policy +3 ~1 -0, routes +1 ~0 -0`; each table's are a mapping, a list of three, or such a text already."""
    return ", ".join(f"{table} {_counts(one)}" for table, one in counts.items()) or "nothing"


def _counts(counts: Any) -> str:
    if isinstance(counts, str):
        return counts
    added, changed, removed = counts.values() if isinstance(counts, Mapping) else counts
    return f"+{added} ~{changed} -{removed}"


def _cut(shown: str) -> str:
    return shown if len(shown) <= _CELL_LIMIT else shown[: _CELL_LIMIT - 1] + "…"


def printable(text: str) -> str:
    """Control characters as escapes: what others wrote must not move our cursor."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def text(value: Any) -> str:
    """A value as a cell: `-` for nothing, `yes` and `no`, `name=value` pairs, items after commas."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text(one)}" for name, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value)) or "-"
    return str(value)
