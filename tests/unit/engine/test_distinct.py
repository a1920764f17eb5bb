"""The different values of an array, without what `np.unique` imports for it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reconciler.engine.distinct import distinct, is_among

ROW = np.dtype([("subject", "<u4"), ("port", "<u2")])
ALONE = """
import sys
import numpy as np
from reconciler.engine.distinct import distinct, is_among
is_among(distinct(np.array([2, 1, 2])), np.array([2]))
print("numpy.ma" in sys.modules)
"""


@given(st.lists(st.integers(0, 9)))
def test_each_value_is_there_once_in_order(values: list[int]) -> None:
    assert distinct(np.array(values, np.uint32)).tolist() == sorted(set(values))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_rows_are_values_too(rows: list[tuple[int, int]]) -> None:
    assert distinct(np.array(rows, ROW)).tolist() == sorted(set(rows))


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_a_value_is_among_others_or_is_not(values: list[int], others: list[int]) -> None:
    found = is_among(np.array(values, np.uint32), np.array(others, np.uint32))
    assert found.tolist() == [value in others for value in values]


def test_masked_arrays_are_not_imported_for_it() -> None:
    said = subprocess.run([sys.executable, "-c", ALONE], check=True, capture_output=True, text=True).stdout
    assert said == "False\n"
