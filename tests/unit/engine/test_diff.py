"""The difference of rows, in both shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reconciler.engine.change import Change, ColumnDelta, Counts
from reconciler.engine.diff import diff_columns, diff_rows
from reconciler.engine.match import Words, hash_words, match, words
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.model.origin import Origin

from .fake import Item, columns, dict_rows
from .states import rows

ORIGIN = Origin("policies/web.yaml", 14, "NetworkPolicy", "web", "c" * 40)
both_shapes = pytest.mark.parametrize("shape", [dict_rows, columns])


def one_slot(rows: Words) -> NDArray[np.uint64]:
    return np.zeros(len(rows), np.uint64)


def two_bits(rows: Words) -> NDArray[np.uint64]:
    return hash_words(rows) & np.uint64(3 << 62)


def numbers(change: Change) -> tuple[int, int | None, int | None]:
    """Key, before and after of a change of either shape, as plain numbers."""
    key = change.key if isinstance(change.key, int) else int(change.key["number"])
    return key, content(change.before), content(change.after)


def content(row: Item | np.void | None) -> int | None:
    if row is None:
        return None
    return row.content if isinstance(row, Item) else int(row["content"])


@both_shapes
@settings(deadline=None)
@given(want=rows, have=rows)
def test_a_diff_is_what_a_dictionary_says(
    shape: Callable[[dict[int, int]], Rows], want: dict[int, int], have: dict[int, int]
) -> None:
    delta = diff_rows("t", shape(want), shape(have), complete=True)
    expected = {(k, have.get(k), want.get(k)) for k in {**want, **have} if have.get(k) != want.get(k)}
    assert set(map(numbers, delta)) == expected
    assert delta.counts.total == len(expected) == len(delta.keys())


@both_shapes
@settings(deadline=None)
@given(want=rows, have=rows)
def test_the_inverse_swaps_before_and_after(
    shape: Callable[[dict[int, int]], Rows], want: dict[int, int], have: dict[int, int]
) -> None:
    delta = diff_rows("t", shape(want), shape(have), complete=True)
    assert {(k, after, before) for k, before, after in map(numbers, delta)} == set(map(numbers, delta.inverse()))


@both_shapes
@settings(deadline=None)
@given(want=rows, have=rows)
def test_nothing_is_removed_before_the_desired_rows_are_complete(
    shape: Callable[[dict[int, int]], Rows], want: dict[int, int], have: dict[int, int]
) -> None:
    partial = diff_rows("t", shape(want), shape(have), complete=False)
    whole = diff_rows("t", shape(want), shape(have), complete=True)
    assert partial.counts == Counts(whole.counts.added, whole.counts.changed, 0)
    assert len(partial.deletes()) == 0


@both_shapes
def test_equal_rows_have_no_difference(shape: Callable[[dict[int, int]], Rows]) -> None:
    assert not diff_rows("t", shape({1: 2, 3: 4}), shape({3: 4, 1: 2}), complete=True)


@pytest.mark.parametrize("weak", [one_slot, two_bits, hash_words])
@settings(deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(0, 300))
def test_columns_are_compared_right_under_hash_collisions(
    weak: Callable[[Words], NDArray[np.uint64]], seed: int, size: int
) -> None:
    random = np.random.default_rng(seed)
    want = {int(k): int(v) for k, v in random.integers(0, 500, (size, 2))}
    have = {int(k): int(v) for k, v in random.integers(0, 500, (size, 2))} | dict(list(want.items())[::2])
    delta = diff_columns("t", columns(want), columns(have), True, weak)
    expected = {(k, have.get(k), want.get(k)) for k in {**want, **have} if have.get(k) != want.get(k)}
    assert set(map(numbers, delta)) == expected


@pytest.mark.parametrize("size", [1, 3, 4, 6, 8, 12, 20, 33])
def test_keys_of_any_size_are_matched(size: int) -> None:
    keys = np.random.default_rng(size).permutation(200).astype(np.uint8)
    wide = np.zeros((200, size), np.uint8)
    wide[:, size - 1] = keys
    records = wide.view([("bytes", "u1", (size,))]).ravel()
    backwards = records[::-1]
    assert match(words(records), words(backwards)).tolist() == list(range(199, -1, -1))


def test_many_rows_in_different_orders_match_exactly() -> None:
    random = np.random.default_rng(0)
    keys = random.permutation(1 << 18).astype("<u4")
    want = Columns(keys.view([("k", "<u4")]), (keys * 3).view([("v", "<u4")]))
    shuffled = want.take(random.permutation(len(keys)))
    values = shuffled.values.copy()
    values["v"][::100] += 1
    delta = diff_rows("t", want, Columns(shuffled.keys, values).take(slice(0, 1 << 17)), complete=True)
    assert delta.counts == Counts((1 << 18) - (1 << 17), len(range(0, 1 << 17, 100)), 0)


def test_the_origin_of_a_row_is_the_desired_one() -> None:
    delta = diff_rows("t", DictRows({1: Item(1)}, {1: ORIGIN}), DictRows({1: Item(2), 2: Item(2)}), complete=True)
    assert [change.origin for change in delta] == [ORIGIN, None]


def test_the_origin_of_a_row_of_columns_is_the_desired_one() -> None:
    want = columns({1: 1, 2: 2, 3: 3})
    named = Columns(want.keys, want.values, (ORIGIN,), np.array([-1, 0, 0], np.int32))
    delta = diff_rows("t", named, columns({2: 1, 4: 4}), complete=True)
    assert {numbers(c)[0]: c.origin for c in delta} == {1: None, 2: ORIGIN, 3: ORIGIN, 4: None}


@pytest.mark.parametrize("count", [10, 100, 10_000])
def test_a_delta_of_columns_keeps_the_origins_of_its_own_rows_only(count: int) -> None:
    others = tuple(replace(ORIGIN, line=line) for line in range(count))
    want = columns({1: 1, 2: 2, 3: 3})
    named = Columns(want.keys, want.values, (*others, ORIGIN), np.array([7, -1, count], np.int32))
    delta = diff_rows("t", named, columns({1: 1, 3: 4}), complete=True)
    assert isinstance(delta, ColumnDelta)
    assert delta.after.origins == (ORIGIN,)
    assert {numbers(c)[0]: c.origin for c in delta} == {2: None, 3: ORIGIN}


def test_rows_of_two_shapes_are_never_compared() -> None:
    with pytest.raises(TypeError, match="desired rows are DictRows"):
        diff_rows("t", dict_rows({}), columns({}), complete=True)


def test_columns_of_two_layouts_are_never_compared() -> None:
    other = Columns(np.zeros(1, [("number", "<u8")]), np.zeros(1, [("content", "<u8")]))
    with pytest.raises(TypeError, match="layout"):
        diff_rows("t", other, columns({}), complete=True)
