"""The different values of an array, and which values of another one are among them.

`np.unique` without options and `np.isin` say the same, but ask numpy.ma whether some are masked: 1.6 MB of a daemon.
Where many are compared with many, `np.isin` is faster all the same.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def distinct(values: NDArray[T]) -> NDArray[T]:
    """Ascending. O(n log n)."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def is_among(values: NDArray[T], others: NDArray[T]) -> NDArray[np.bool_]:
    """Of each value, whether it is one of the others. O((n + m) log m)."""
    if not len(others):
        return np.zeros(len(values), np.bool_)
    ordered = np.sort(others)
    found: NDArray[np.bool_] = ordered[np.searchsorted(ordered[:-1], values)] == values
    return found
