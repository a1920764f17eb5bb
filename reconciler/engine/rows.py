"""Rows in their two shapes: dictionaries of frozen values, and columns for what is big.

Both know the origin of a row. Neither is ever changed once made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.model.origin import Origin

_FEW = 64  # origins for each row, above which rows are looked at one by one

Key = Any  # hashable: a str, an address, a frozen dataclass
Row = Any  # a frozen dataclass


@dataclass(frozen=True, slots=True)
class DictRows:
    """key -> row, both frozen; `origins` may lack keys (live rows have none)."""

    rows: Mapping[Key, Row]
    origins: Mapping[Key, Origin] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Columns:
    """Parallel structured arrays, one record a row; keys are unique, in any order.

    `origin_of[i]` is the index of row i's origin in `origins`, or -1; an empty array means that no row has one.
    """

    keys: NDArray[np.void]
    values: NDArray[np.void]
    origins: tuple[Origin, ...] = ()
    origin_of: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: NDArray[np.intp] | slice) -> Columns:
        """The rows at `index`, in its order."""
        origin_of = self.origin_of[index] if len(self.origin_of) else self.origin_of
        return Columns(self.keys[index], self.values[index], self.origins, origin_of)

    def with_own_origins(self) -> Columns:
        """The same rows without the origins that none of them has. O(rows + origins); of few rows O(rows)."""
        if len(self.origin_of) * _FEW < len(self.origins):
            return self._with_few_origins()
        used = np.zeros(len(self.origins) + 1, np.bool_)  # the last is what rows without an origin mark
        used[self.origin_of] = True
        used[-1] = False
        place = np.cumsum(used, dtype=np.int32) - np.int32(1)
        place[-1] = -1
        return Columns(self.keys, self.values, tuple(compress(self.origins, used)), place[self.origin_of])

    def _with_few_origins(self) -> Columns:
        used = sorted({at for at in self.origin_of.tolist() if at >= 0})
        place = {-1: -1, **{at: index for index, at in enumerate(used)}}
        origin_of = np.array([place[at] for at in self.origin_of.tolist()], np.int32)
        return Columns(self.keys, self.values, tuple(self.origins[at] for at in used), origin_of)

    def origin(self, row: int) -> Origin | None:
        """Of the row at this index."""
        at = int(self.origin_of[row]) if len(self.origin_of) else -1
        return self.origins[at] if at >= 0 else None


Rows = DictRows | Columns
