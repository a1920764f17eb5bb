"""Rows on their way into tables: each has its origin, and no two documents ask for different rows of one key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from reconciler.engine.rows import DictRows, Key, Row
from reconciler.errors import CompileError
from reconciler.model.origin import Origin


class AskedRow(NamedTuple):
    table: str
    key: Key
    row: Row
    origin: Origin


def tables(names: Iterable[str], rows: Iterable[AskedRow]) -> dict[str, DictRows]:
    """Every table of `names`, empty ones too. Raises CompileError if two rows of one key differ."""
    found: dict[str, tuple[dict[Key, Row], dict[Key, Origin]]] = {name: ({}, {}) for name in names}
    for table, key, row, origin in rows:
        values, origins = found[table]
        if key not in values:
            values[key] = row
            origins[key] = origin
        elif values[key] != row:
            raise CompileError(f"{origin}: asks for {key} = {row}, but {origins[key]} asks for {values[key]}")
    return {name: DictRows(values, origins) for name, (values, origins) in found.items()}
