"""What the kernel says somebody touched, and the rows behind it: a short cut that no pass depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.match import match, words
from reconciler.engine.rows import Columns, DictRows, Key, Rows


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


Touched = TouchedMap | TouchedLink | TouchedPin | TouchedNamespace
Keys = Collection[Key] | NDArray[np.void]  # as `live(only=...)` of a table takes them


def inside(netns: str, rows: Rows) -> list[Key]:
    """Keys of the rows that should be in a namespace."""
    return [key for key in rows.rows if key.netns == netns] if isinstance(rows, DictRows) else []


def among(rows: Rows, keys: Keys) -> Rows:
    """The rows with these keys. In columns one pass over all keys, some microseconds a thousand."""
    if isinstance(rows, Columns):
        asked = words(cast("NDArray[np.void]", keys))
        return rows.take(np.flatnonzero(match(words(rows.keys), asked) >= 0))
    there = [key for key in keys if key in rows.rows]
    origins = {key: rows.origins[key] for key in there if key in rows.origins}
    return DictRows({key: rows.rows[key] for key in there}, origins)


def united(parts: Iterable[Keys]) -> Keys:
    """Each key once. All parts are of one table."""
    every = list(parts)
    columns = [part for part in every if isinstance(part, np.ndarray)]
    if columns:
        return np.unique(np.concatenate(columns))
    return frozenset(key for part in every for key in part)
