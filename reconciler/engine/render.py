"""A plan as people read it: what happens to how many rows of each table, and the rows on request.

policy: +1 ~1 -0
  + subject=256 peer=257 protocol=6 port=80   verdict=1   # policies/web.yaml:14 (NetworkPolicy web) @ 1f3c
  ~ subject=256 peer=2 protocol=0 port=0   verdict=1 -> 2
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import chain, islice
from typing import Any

import numpy as np

from reconciler.engine.change import Change, Delta

Fields = Callable[[str, Any], Mapping[str, object]]

_COLOURS = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[31m"}
_RESET = "\x1b[0m"


def render_deltas(deltas: Iterable[Delta], rows: bool, color: bool, fields: Fields) -> str:
    """`fields(table, key or row)` gives what is shown of it, by name; the name '' shows the value alone."""
    lines: list[str] = []
    for delta in deltas:
        lines.append(f"{delta.table}: {delta.counts}")
        if rows:
            lines += [_coloured(line, color) for line in sorted(_line(change, fields) for change in delta)]
    return "\n".join(lines)


def fields_of(table: str, value: Any) -> Mapping[str, object]:
    """Fields of a record without its padding, of a dataclass without what has its default; else the value itself."""
    if isinstance(value, np.void) and value.dtype.names:
        return {name: value[name] for name in value.dtype.names if not name.startswith("pad")}
    if dataclasses.is_dataclass(value):
        shown = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: content for field, content in shown if content != field.default}
    return {"": value}


def key_text(change: Change, fields: Fields = fields_of) -> str:
    """Which row: `ifname=plweb-3f2a91 direction=ingress`."""
    return _text(fields(change.table, change.key))


def change_text(change: Change, fields: Fields = fields_of) -> str:
    """The row of a plan without its origin: `~ net/ipv4/ip_forward   value=0 -> 1`."""
    key = key_text(change, fields)
    if change.before is None:
        return f"+ {key}   {_text(fields(change.table, change.after))}".rstrip()
    if change.after is None:
        return f"- {key}   {_text(fields(change.table, change.before))}".rstrip()
    return f"~ {key}   {_differences(fields(change.table, change.before), fields(change.table, change.after))}"


def mismatches(deltas: Iterable[Delta], limit: int = 3) -> str:
    """Of deltas from what is to what should be: the first rows, as `routes: netns=web is absent, expected ...`."""
    deltas = tuple(deltas)
    shown = [_mismatch(change) for change in islice(chain.from_iterable(deltas), limit)]
    more = sum(delta.counts.total for delta in deltas) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _mismatch(change: Change) -> str:
    key, found, expected = (
        "absent" if value is None else _text(fields_of(change.table, value)) or "present"
        for value in (change.key, change.before, change.after)
    )
    return f"{change.table}: {key} is {found}, expected {expected}"


def _line(change: Change, fields: Fields) -> str:
    origin = f"   # {change.origin}" if change.origin else ""
    return f"  {change_text(change, fields)}{origin}"


def _coloured(line: str, color: bool) -> str:
    return f"{_COLOURS[line.lstrip()[0]]}{line}{_RESET}" if color else line


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = [name for name in {**before, **after} if _value(before.get(name)) != _value(after.get(name))]
    return " ".join(_pair(name, f"{_value(before.get(name))} -> {_value(after.get(name))}") for name in names)


def _text(fields: Mapping[str, object]) -> str:
    return " ".join(_pair(name, _value(value)) for name, value in fields.items())


def _pair(name: str, text: str) -> str:
    return f"{name}={text}" if name else text


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return value.name.lower() if value.name else str(value.value)
    if isinstance(value, np.ndarray):
        return value.tobytes().hex()
    if dataclasses.is_dataclass(value) or isinstance(value, np.void):
        return f"({_text(fields_of('', value))})"
    return str(value)
