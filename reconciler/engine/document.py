"""A delta as a JSON document, exactly, and back.

Rows of dictionaries are a list of objects. Rows of columns are one entry a field: a list of numbers that people can
read, or, where there are many, base64 of the packed little-endian array; `changed` is that of `ColumnDelta`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.change import ColumnDelta, Delta, DictDelta
from reconciler.engine.rows import Columns, Key, Row
from reconciler.engine.table import ColumnTable, Table
from reconciler.engine.values import from_plain, to_plain
from reconciler.errors import UsageError
from reconciler.model.origin import Origin

_READABLE_ROWS = 4096  # above it a list of numbers is no longer read by anyone, and costs ten times the space and time


def encode(delta: Delta) -> dict[str, Any]:
    if isinstance(delta, DictDelta):
        rows = [{"key": c.key, "before": c.before, "after": c.after, "origin": c.origin} for c in delta]
        return {"table": delta.table, "rows": to_plain(rows)}
    return {
        "table": delta.table,
        "layout": [str(delta.after.keys.dtype), str(delta.after.values.dtype)],
        "changed": delta.changed,
        "before": _encode_columns(delta.before),
        "after": _encode_columns(delta.after),
    }


def decode(document: Mapping[str, Any], tables: Mapping[str, Table]) -> Delta:
    """Raises UsageError when the host has no such table, its rows have another layout, or the document is no delta."""
    try:
        table = tables[document["table"]]
    except (KeyError, TypeError) as error:
        raise UsageError(f"the plan is for a table that this host does not have: {error}") from error
    try:
        return _decode_columns_delta(document, table) if _is_columns(table) else _decode_dict_delta(document, table)
    except UsageError:
        raise
    except Exception as error:  # cattrs, numpy and base64 raise whatever they meet
        raise UsageError(f"{table.name}: the plan's rows cannot be read: {error}") from error


def _is_columns(table: Table) -> TypeGuard[ColumnTable]:
    return hasattr(table, "key_dtype")


def _decode_dict_delta(document: Mapping[str, Any], table: Any) -> DictDelta:
    before: dict[Key, Row] = {}
    after: dict[Key, Row] = {}
    origins: dict[Key, Origin] = {}
    for row in document["rows"]:
        key = from_plain(row["key"], table.key_type)
        for side, rows in (("before", before), ("after", after)):
            if row[side] is not None:
                rows[key] = from_plain(row[side], table.row_type)
        if row["origin"] is not None:
            origins[key] = from_plain(row["origin"], Origin)
    return DictDelta(table.name, before, after, origins)


def _decode_columns_delta(document: Mapping[str, Any], table: ColumnTable) -> ColumnDelta:
    if document["layout"] != [str(table.key_dtype), str(table.value_dtype)]:
        raise UsageError(f"{table.name}: the plan was made for another layout of rows: make it again")
    before, after = (_decode_columns(document[side], table) for side in ("before", "after"))
    return ColumnDelta(table.name, before, after, int(document["changed"]))


def _encode_columns(columns: Columns) -> dict[str, Any]:
    return {
        "rows": len(columns),
        "key": _encode_fields(columns.keys),
        "value": _encode_fields(columns.values),
        "origins": to_plain(columns.origins),
        "origin": _encode_field(columns.origin_of),
    }


def _decode_columns(document: Mapping[str, Any], table: ColumnTable) -> Columns:
    rows = int(document["rows"])
    origin_of = _decode_field(document["origin"], np.dtype(np.int32))
    return Columns(
        _decode_fields(document["key"], table.key_dtype, rows),
        _decode_fields(document["value"], table.value_dtype, rows),
        tuple(from_plain(origin, Origin) for origin in document["origins"]),
        origin_of,
    )


def _encode_fields(records: NDArray[np.void]) -> dict[str, Any]:
    return {name: _encode_field(records[name]) for name in records.dtype.names or ()}


def _decode_fields(document: Mapping[str, Any], dtype: np.dtype[np.void], rows: int) -> NDArray[np.void]:
    records = np.zeros(rows, dtype)
    for name in dtype.names or ():
        records[name] = _decode_field(document[name], dtype[name])
    return records


def _encode_field(column: NDArray[Any]) -> Any:
    if len(column) <= _READABLE_ROWS and column.dtype.kind in "iub":
        return column.tolist()
    return base64.b64encode(np.ascontiguousarray(column).tobytes()).decode()


def _decode_field(plain: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if isinstance(plain, str):
        return np.frombuffer(base64.b64decode(plain, validate=True), dtype)
    return np.array(plain, dtype.base).reshape(-1, *dtype.shape)
