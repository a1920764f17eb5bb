"""The last result of a pure function, remembered with its inputs."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial

import pytest

from reconciler.engine.remembered import Remembered


@dataclass(frozen=True)
class Facts:
    number: int


def test_equal_inputs_are_not_computed_twice_and_others_are() -> None:
    memory: Remembered[list[int]] = Remembered()
    found = [memory.get((Facts(number),), partial(list, [number])) for number in (1, 1, 2, 1)]
    assert found == [[1], [1], [2], [1]]
    assert found[0] is found[1] is not found[3]


def test_what_could_not_be_computed_leaves_what_was_remembered() -> None:
    memory: Remembered[object] = Remembered()
    result = memory.get((1,), object)
    with pytest.raises(ZeroDivisionError):
        memory.get((2,), lambda: 1 // 0)
    assert memory.get((1,), object) is result


def test_older_inputs_are_let_go_when_equal_ones_come() -> None:
    memory: Remembered[object] = Remembered()
    older, newer = Facts(1), Facts(1)
    memory.get((older,), object)
    seen = weakref.ref(older)
    memory.get((newer,), object)
    del older
    assert seen() is None
