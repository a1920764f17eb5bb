"""Numbers drawn by hash: a function of the set of names, and never handed from one name to another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.compile.numbering import hashed, number
from reconciler.errors import CompileError

names = st.text("abcdef", min_size=1, max_size=3)
SIZE = 256


@given(st.lists(names, max_size=30, unique=True), st.randoms())
def test_the_order_of_names_does_not_matter(found: list[str], random: object) -> None:
    shuffled = sorted(found, key=lambda name: hashed(name, 99))
    assert number(found, SIZE) == number(shuffled, SIZE)


@given(st.lists(names, max_size=30))
def test_numbers_differ_and_lie_in_range(found: list[str]) -> None:
    numbers = number(found, SIZE)
    assert numbers.keys() == set(found)
    assert len(set(numbers.values())) == len(numbers)
    assert all(0 <= one < SIZE for one in numbers.values())


def same_first(name: str, attempt: int) -> int:
    """`a` and `b` collide at first, and `b` draws nobody else's number after that."""
    return {("a", 0): 5, ("b", 0): 5, ("a", 1): 11, ("b", 1): 12}.get((name, attempt), 40 + attempt)


def test_a_contested_number_falls_idle_instead_of_changing_hands() -> None:
    assert number(["a"], SIZE, same_first) == {"a": 5}
    assert number(["a", "b"], SIZE, same_first) == {"a": 11, "b": 12}
    assert number(["b"], SIZE, same_first) == {"b": 5}


def test_numbers_are_the_same_on_every_host_and_in_every_release() -> None:
    assert number(["10.0.0.0/8"], 1 << 23) == {"10.0.0.0/8": 7539027}


def test_too_many_names_are_refused() -> None:
    with pytest.raises(CompileError, match="33 names are too many for 256 numbers"):
        number(map(str, range(33)), SIZE)
