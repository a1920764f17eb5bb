"""What differs between two states of a table, in the shape of its rows: one `Change` a row, one delta a table.

A delta holds both sides of every row that it touches, so its inverse is made by swapping them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.rows import Columns, Key, Row
from reconciler.model.origin import Origin


@dataclass(frozen=True, slots=True)
class Change:
    """One row of one table. `before` None: it is added. `after` None: it is removed.

    In a table of columns, key and rows are records (`np.void`) that know the names of their fields.
    """

    table: str
    key: Any
    before: Row | None
    after: Row | None
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by what happens to them; as text `+3 ~1 -0`."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed

    def __str__(self) -> str:
        return f"+{self.added} ~{self.changed} -{self.removed}"


@dataclass(frozen=True, slots=True)
class DictDelta:
    """`before` has the rows that change or go, `after` those that change or come; a changed row's key is in both."""

    table: str
    before: Mapping[Key, Row]
    after: Mapping[Key, Row]
    origins: Mapping[Key, Origin] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.before or self.after)

    def __iter__(self) -> Iterator[Change]:
        for key in self.keys():
            yield Change(self.table, key, self.before.get(key), self.after.get(key), self.origins.get(key))

    @property
    def counts(self) -> Counts:
        changed = sum(key in self.before for key in self.after)
        return Counts(len(self.after) - changed, changed, len(self.before) - changed)

    def keys(self) -> tuple[Key, ...]:
        """Every key touched, once."""
        return (*self.after, *self.deletes())

    def inverse(self) -> DictDelta:
        return DictDelta(self.table, self.after, self.before, self.origins)

    def upserts(self) -> Mapping[Key, Row]:
        return self.after

    def deletes(self) -> tuple[Key, ...]:
        return tuple(key for key in self.before if key not in self.after)


@dataclass(frozen=True, slots=True, eq=False)
class ColumnDelta:
    """The same in columns: the first `changed` rows of `before` and `after` are the same keys in the same order.

    What follows them in `before` is removed, what follows them in `after` is added.
    """

    table: str
    before: Columns
    after: Columns
    changed: int

    def __bool__(self) -> bool:
        return bool(len(self.before) or len(self.after))

    def __iter__(self) -> Iterator[Change]:
        for i in range(len(self.after)):
            was = self.before.values[i] if i < self.changed else None
            origin = self.after.origin(i) or (self.before.origin(i) if i < self.changed else None)
            yield Change(self.table, self.after.keys[i], was, self.after.values[i], origin)
        for i in range(self.changed, len(self.before)):
            yield Change(self.table, self.before.keys[i], self.before.values[i], None, self.before.origin(i))

    @property
    def counts(self) -> Counts:
        return Counts(len(self.after) - self.changed, self.changed, len(self.before) - self.changed)

    def keys(self) -> NDArray[np.void]:
        """Every key touched, once."""
        return np.concatenate([self.after.keys, self.deletes()])

    def inverse(self) -> ColumnDelta:
        return ColumnDelta(self.table, self.after, self.before, self.changed)

    def upserts(self) -> Columns:
        return self.after

    def deletes(self) -> NDArray[np.void]:
        return self.before.keys[self.changed :]


Delta = DictDelta | ColumnDelta
