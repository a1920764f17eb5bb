"""Grace periods in a hurry: the machine's switch is borrowed, and given back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.bpf.grace import _HASTE, _OFF, _OURS, hurried
from reconciler.bpf.syscalls import held


@contextmanager
def alone() -> Iterator[int]:
    """Nobody else of us has the switch meanwhile."""
    with held(os.open(_HASTE, os.O_RDWR)) as switch:
        fcntl.flock(switch, fcntl.LOCK_EX)
        yield switch


def value() -> int:
    with alone() as switch:
        return int(os.pread(switch, 16, 0))


def set_to(number: int) -> None:
    with alone() as switch:
        os.pwrite(switch, b"%d" % number, 0)


def with_haste(*steps: Callable[[], object]) -> None:
    with hurried():
        for step in steps:
            step()


@pytest.fixture
def switch() -> Iterator[Callable[[int], None]]:
    before = value()
    yield set_to
    set_to(before)


def test_it_is_on_inside_and_off_afterwards_even_after_a_failure(switch: Callable[[int], None]) -> None:
    switch(_OFF)
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        with_haste(lambda: seen.append(int(Path(_HASTE).read_text())), lambda: 1 // 0)
    assert seen == [_OURS]
    assert value() == _OFF


def test_what_a_killed_process_left_on_is_turned_off_by_the_next(switch: Callable[[int], None]) -> None:
    switch(_OURS)
    with hurried():
        pass
    assert value() == _OFF


def test_what_the_administrator_turned_on_stays_on(switch: Callable[[int], None]) -> None:
    switch(1)
    with hurried():
        assert int(Path(_HASTE).read_text()) == 1
    assert int(Path(_HASTE).read_text()) == 1
