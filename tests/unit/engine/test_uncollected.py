"""Work during which nothing is collected."""

from __future__ import annotations

import gc

import pytest

from reconciler.engine.uncollected import uncollected


@pytest.fixture(autouse=True)
def collecting() -> None:
    assert gc.isenabled()


def test_nothing_is_collected_inside_and_again_afterwards() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_collected_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), uncollected():
        _ = 1 / 0
    assert gc.isenabled()


def test_the_inner_of_two_leaves_it_to_the_outer() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_decorated_function_is_left_as_it_was_entered_each_time() -> None:
    work = uncollected()(gc.isenabled)
    assert [work(), gc.isenabled(), work(), gc.isenabled()] == [False, True, False, True]
