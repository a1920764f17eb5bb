"""Restoring as much as can be after a crash, on a host that may have lost devices since.

A row that cannot be restored (its link is gone) is skipped with a warning: the next pass compares everything anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from reconciler.engine.change import Delta, DictDelta
from reconciler.engine.table import Table
from reconciler.engine.transaction import in_order, put, remove, restore

log = logging.getLogger(__name__)


def recover(inverse: Sequence[Delta], tables: Mapping[str, Table]) -> list[str]:
    """Make every row the `after` of its delta; what could not be done is returned, a line each."""
    try:
        restore(inverse, tables)
    except Exception as error:  # anything a table may raise: the rows are tried one by one
        log.warning("restoring row by row: %s", error)
        return one_by_one(inverse, tables)
    return []


def one_by_one(deltas: Sequence[Delta], tables: Mapping[str, Table]) -> list[str]:
    """The same, each row by itself; rows behind a flip stay together."""
    ordered = in_order(deltas, tables)
    plain = [(tables[delta.table], delta) for delta in ordered if tables[delta.table].flip is None]
    complaints = [_try(remove, table, row) for table, delta in reversed(plain) for row in _rows(delta)]
    complaints += [_flip([delta for delta in ordered if tables[delta.table].flip is not None], tables)]
    complaints += [_try(_insert, table, row) for table, delta in plain for row in _rows(delta)]
    return [complaint for complaint in complaints if complaint]


def _flip(deltas: Sequence[Delta], tables: Mapping[str, Table]) -> str:
    """All or nothing for each flip: half of a generation must never count."""
    flips = {id(flip): flip for delta in deltas if (flip := tables[delta.table].flip) is not None}
    complaints = []
    for flip in flips.values():
        try:
            flip.begin()
            for delta in deltas:
                if tables[delta.table].flip is flip:
                    put(tables[delta.table], delta, deletes=True)
            flip.flip()
        except Exception as error:  # as above
            complaints.append(str(error))
    return "; ".join(complaints)


def _insert(table: Table, delta: Delta) -> None:
    put(table, delta, deletes=False)


def _try(action: Callable[[Table, Delta], None], table: Table, delta: Delta) -> str:
    try:
        action(table, delta)
    except Exception as error:  # as above
        log.warning("not restored: %s: %s", table.name, error)
        return f"{table.name}: {error}"
    return ""


def _rows(delta: Delta) -> Iterator[Delta]:
    """Rows of dictionaries one at a time; columns name no devices and stay together."""
    if not isinstance(delta, DictDelta):
        yield delta
        return
    for change in delta:
        before = {} if change.before is None else {change.key: change.before}
        after = {} if change.after is None else {change.key: change.after}
        yield DictDelta(delta.table, before, after)
