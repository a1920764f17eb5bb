"""What the kernel says somebody touched, and the rows behind it: a short cut that no pass depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.change import ColumnDelta, Delta
from reconciler.engine.distinct import distinct
from reconciler.engine.match import Words, differ, match, words
from reconciler.engine.rows import Columns, DictRows, Key, Rows

_FEW = 8  # keys that are looked for one by one


class TouchedMap(NamedTuple):
    """`key`: as it lies in the map with this id."""

    id: int
    key: bytes


class TouchedLink(NamedTuple):
    id: int


class TouchedPin(NamedTuple):
    """Of a link, by its name below the pin root."""

    name: str


class TouchedNamespace(NamedTuple):
    """Something of these tables in one network namespace."""

    netns: str
    tables: frozenset[str]


class GoneRow(NamedTuple):
    """The kernel said that it was deleted."""

    table: str
    key: Key


Touched = TouchedMap | TouchedLink | TouchedPin | TouchedNamespace | GoneRow
Keys = Collection[Key] | NDArray[np.void]  # as `live(only=...)` of a table takes them


def inside(netns: str, rows: Rows) -> list[Key]:
    """Keys of the rows that should be in a namespace."""
    return [key for key in rows.rows if key.netns == netns] if isinstance(rows, DictRows) else []


def are_gone(table: str, keys: Keys, touched: Collection[Touched]) -> bool:
    """Whether all that is known of these rows is that they were deleted, so that nobody need read them."""
    return not isinstance(keys, np.ndarray) and all(GoneRow(table, key) in touched for key in keys)


def among(rows: Rows, keys: Keys) -> Rows:
    """The rows with these keys. In columns one pass over all of them, for few keys 1 us a thousand rows and key."""
    if isinstance(rows, Columns):
        return rows.take(_positions(words(rows.keys), words(cast("NDArray[np.void]", keys))))
    there = [key for key in keys if key in rows.rows]
    origins = {key: rows.origins[key] for key in there if key in rows.origins}
    return DictRows({key: rows.rows[key] for key in there}, origins)


def changed_keys(delta: Delta) -> Keys:
    """Keys of every row that it adds, changes or removes."""
    if isinstance(delta, ColumnDelta):
        return distinct(np.concatenate([delta.before.keys, delta.after.keys]))
    return delta.before.keys() | delta.after.keys()


def _positions(every: Words, asked: Words) -> NDArray[np.intp]:
    if len(asked) > _FEW:
        return np.flatnonzero(match(every, asked) >= 0)
    found = np.zeros(len(every), np.bool_)
    for key in asked:
        found |= ~differ(every, key.reshape(1, -1))
    return np.flatnonzero(found)


def united(parts: Iterable[Keys]) -> Keys:
    """Each key once. All parts are of one table."""
    every = list(parts)
    if len(every) == 1:
        return every[0]
    columns = [part for part in every if isinstance(part, np.ndarray)]
    if columns:
        return distinct(np.concatenate(columns))
    return frozenset(key for part in every for key in part)
