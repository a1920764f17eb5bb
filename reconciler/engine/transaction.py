"""Writing deltas so that packets see the old state or the new one: the order of writes, and their way back.

Make before break: rows come in the order of `after`, then every flip turns, then rows go in the reverse order.
Tables behind a flip are written once, between `begin` and `flip`: until the flip nothing of theirs counts. Gates do the
opposite, break before make: their rows go before everything else and come right after the flips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import cast

from reconciler.engine.change import ColumnDelta, Delta, DictDelta
from reconciler.engine.diff import diff_rows
from reconciler.engine.render import mismatches
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import ColumnTable, DictTable, Flip, Gate, Table
from reconciler.errors import ApplyError


def in_order(deltas: Sequence[Delta], tables: Mapping[str, Table]) -> list[Delta]:
    """The deltas in the order of their tables' `after`; names in `after` that this host lacks mean nothing.

    Raises ApplyError when a table is unknown, or when tables wait for each other.
    """
    for delta in deltas:
        if delta.table not in tables:
            raise ApplyError(f"the plan changes {delta.table}, which this host does not have")
    if len(deltas) < 2:
        return list(deltas)
    rank = _ranks(tuple((name, table.after) for name, table in tables.items()))
    return sorted(deltas, key=lambda delta: rank[delta.table])


@lru_cache(maxsize=16)
def _ranks(after: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[str, int]:
    known = {name for name, _ in after}
    graph = {name: [other for other in others if other in known] for name, others in after}
    try:
        return {name: rank for rank, name in enumerate(TopologicalSorter(graph).static_order())}
    except CycleError as error:
        raise ApplyError(f"tables wait for each other: {' -> '.join(error.args[1])}") from error


def write(deltas: Sequence[Delta], tables: Mapping[str, Table], *, room_first: bool = False) -> None:
    """Write all of them; `room_first` deletes before it inserts, for tables that cannot hold both states at once.

    Idempotent. Raises what the tables raise.
    """
    all_ordered = in_order(deltas, tables)
    gates = [delta for delta in all_ordered if isinstance(delta, DictDelta) and _is_gate(tables[delta.table])]
    ordered = [delta for delta in all_ordered if not _is_gate(tables[delta.table])]
    _close(gates, tables)
    if room_first:
        _remove(ordered, tables)
    begun: list[Flip] = []
    for delta in ordered:
        table = tables[delta.table]
        if table.flip is None:
            put(table, delta, deletes=False)
            continue
        if not any(flip is table.flip for flip in begun):
            table.flip.begin()
            begun.append(table.flip)
        put(table, delta, deletes=True)
    for flip in begun:
        flip.flip()
    _open(gates, tables, begun)
    if not room_first:
        _remove(ordered, tables)


def _is_gate(table: Table) -> bool:
    return getattr(table, "gate", False)


def _close(gates: Sequence[DictDelta], tables: Mapping[str, Table]) -> None:
    for delta in gates:
        table = cast(Gate, tables[delta.table])
        kept = {key for key in delta.before.keys() & delta.after.keys() if _is_same(table, delta, key)}
        if closed := tuple(key for key in delta.before if key not in kept):
            table.write({}, closed)


def _is_same(table: Gate, delta: DictDelta, key: Key) -> bool:
    return table.is_same_way(delta.before[key], delta.after[key])


def _open(gates: Sequence[DictDelta], tables: Mapping[str, Table], begun: Sequence[Flip]) -> None:
    if any(delta.after for delta in gates):
        for flip in begun:
            flip.settle()
    for delta in gates:
        put(tables[delta.table], delta, deletes=False)


def put(table: Table, delta: Delta, *, deletes: bool) -> None:
    """One call of `table.write` with the delta's upserts, and with its deletes if asked; none if that is nothing."""
    if isinstance(delta, ColumnDelta):
        keys = delta.deletes() if deletes else delta.deletes()[:0]
        if len(delta.after) or len(keys):
            cast(ColumnTable, table).write(delta.upserts(), keys)
    else:
        gone = delta.deletes() if deletes else ()
        if delta.after or gone:
            cast(DictTable, table).write(delta.upserts(), gone)


def remove(table: Table, delta: Delta) -> None:
    """One call of `table.write` with the delta's deletes; none if there are none."""
    if isinstance(delta, ColumnDelta):
        if len(keys := delta.deletes()):
            cast(ColumnTable, table).write(delta.after.take(slice(0, 0)), keys)
    elif gone := delta.deletes():
        cast(DictTable, table).write({}, gone)


def _remove(ordered: Sequence[Delta], tables: Mapping[str, Table]) -> None:
    for delta in reversed(ordered):
        if (table := tables[delta.table]).flip is None:
            remove(table, delta)


def restore(inverse: Sequence[Delta], tables: Mapping[str, Table]) -> None:
    """Take a transaction back, wherever it stopped: each row becomes the `after` of its inverse whatever it is now.

    The way back makes before it breaks too, so that packets see one state or the other; where that finds no room
    (something else filled a table meanwhile) rows are deleted first. Raises ApplyError if rows are left that differ.
    """
    try:
        write(inverse, tables)
    except Exception:  # whatever a table raised: the second way is tried, and raises its own
        write(inverse, tables, room_first=True)
    if left := unmet(inverse, tables):
        raise ApplyError(f"rows are not as they were: {mismatches(left)}")


def unmet(deltas: Iterable[Delta], tables: Mapping[str, Table]) -> list[Delta]:
    """By reading the touched rows again: what would still have to change until they are `after`; [] if nothing."""
    left = (_compare(delta, tables[delta.table]) for delta in deltas)
    return [delta for delta in left if delta]


def stale(deltas: Iterable[Delta], tables: Mapping[str, Table]) -> list[Delta]:
    """Where the live rows are no longer the deltas' `before`: what would have to change until they are again."""
    return unmet((delta.inverse() for delta in deltas), tables)


def _compare(delta: Delta, table: Table) -> Delta:
    if isinstance(delta, ColumnDelta):
        return diff_rows(delta.table, delta.after, cast(ColumnTable, table).live(delta.keys()), complete=True)
    return diff_rows(delta.table, DictRows(delta.after), cast(DictTable, table).live(delta.keys()), complete=True)
