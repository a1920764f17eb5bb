"""A pure function that is not computed twice in a row for the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """The last result of a pure function, given again while its inputs are equal.

    The same objects compare at once. Of equal inputs the newest are kept, which are in use elsewhere too: older ones
    may be all the facts of a commit, held by nothing else.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[object, ...], T] | None = None

    def get(self, inputs: tuple[object, ...], compute: Callable[[], T]) -> T:
        """`inputs` is everything that `compute` depends on; nothing in it may be changed later."""
        last = self._last
        result = last[1] if last is not None and last[0] == inputs else compute()
        self._last = (inputs, result)
        return result
