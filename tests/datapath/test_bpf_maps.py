"""Maps as columns: what is written is read, by batches or one by one; full maps say so."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.bpf import maps, syscalls
from reconciler.bpf.grace import wait_for_programs
from reconciler.bpf.maps import ARRAY, HASH, LPM_TRIE, NO_PREALLOC
from reconciler.bpf.syscalls import held
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import Map

from .harness import Harness

KEY = np.dtype([("prefixlen", "<u4"), ("address", "<u4")])
VALUE = np.dtype("<u4")
ROWS = 300

Made = Callable[[int], int]


@pytest.fixture
def made() -> Iterator[Made]:
    """Makes a map of 8 bytes of key and 4 of value, for one test."""
    with_rows: list[int] = []

    def make(kind: int) -> int:
        with_rows.append(maps.create(kind, 8, 4, ROWS, flags=NO_PREALLOC, name="pt_columns"))
        return with_rows[-1]

    yield make
    for descriptor in with_rows:
        syscalls.os.close(descriptor)


def rows(numbers: list[int]) -> np.ndarray:
    keys = np.zeros(len(numbers), KEY)
    keys["prefixlen"], keys["address"] = 32, numbers
    return keys


def as_dict(keys: np.ndarray, values: np.ndarray) -> dict[int, int]:
    return dict(zip(keys["address"].tolist(), values.tolist(), strict=True))


numbers = st.lists(st.integers(0, 50), unique=True, max_size=40)


@pytest.mark.parametrize("kind", [HASH, LPM_TRIE])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(numbers, numbers), max_size=4))
def test_writes_and_deletes_are_those_of_a_dictionary(
    made: Made, kind: int, steps: list[tuple[list[int], list[int]]]
) -> None:
    with held(maps.create(kind, 8, 4, ROWS, flags=NO_PREALLOC, name="pt_columns")) as descriptor:
        expected: dict[int, int] = {}
        for step, (upserts, deletes) in enumerate(steps):
            assert maps.update(descriptor, rows(upserts), np.full(len(upserts), step, VALUE)) == 0
            assert maps.delete(descriptor, rows(deletes)) == 0
            expected |= dict.fromkeys(upserts, step)
            expected = {number: value for number, value in expected.items() if number not in deletes}
            assert as_dict(*maps.read(descriptor, KEY, VALUE, ROWS)) == expected
            assert as_dict(*maps.read_singly(descriptor, KEY, VALUE, ROWS)) == expected
            found, values = maps.lookup(descriptor, rows(list(range(51))), VALUE)
            assert {n: int(values[n]) for n in np.flatnonzero(found).tolist()} == expected


@pytest.mark.parametrize("kind", [HASH, LPM_TRIE])
def test_more_rows_than_one_chunk_are_read(kind: int) -> None:
    count = 70_000
    with held(maps.create(kind, 8, 4, count, flags=NO_PREALLOC, name="pt_columns")) as descriptor:
        assert maps.update(descriptor, rows(list(range(count))), np.arange(count, dtype=VALUE)) == 0
        keys, values = maps.read(descriptor, KEY, VALUE, count)
        assert len(keys) == count
        assert (keys["address"] == values).all()


def test_what_stays_is_read_while_the_map_changes() -> None:
    stay, change = rows(list(range(2000))), rows(list(range(5000, 9000)))
    stop = Event()
    with held(maps.create(HASH, 8, 4, 10_000, flags=NO_PREALLOC, name="pt_columns")) as descriptor:
        maps.update(descriptor, stay, np.zeros(len(stay), VALUE))

        def churn() -> None:
            while not stop.is_set():
                maps.update(descriptor, change, np.zeros(len(change), VALUE))
                maps.delete(descriptor, change)

        thread = Thread(target=churn)
        thread.start()
        try:
            for _ in range(20):
                keys, _ = maps.read(descriptor, KEY, VALUE, 10_000)
                assert set(range(2000)) <= set(keys["address"].tolist())
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("kind", [HASH, LPM_TRIE])
@pytest.mark.parametrize("asked", [3, ROWS])
def test_few_keys_and_many_are_looked_up_alike(datapath: Harness, kind: int, asked: int) -> None:
    """Many are, in a hash, found by reading it whole."""
    descriptor = maps.create(kind, 8, 4, ROWS, flags=NO_PREALLOC, name="pt_columns")
    map_ = _TypedMap("pt_columns", descriptor, maps.info(descriptor), datapath.maps._types)
    there = rows(list(range(0, ROWS, 2)))
    map_.update(there, np.arange(len(there), dtype=VALUE))
    found, values = map_.lookup(rows(list(range(asked))))
    assert found.tolist() == [number % 2 == 0 for number in range(asked)]
    assert values[found].tolist() == list(range((asked + 1) // 2))
    assert not values[~found].any()


class _TypedMap(Map):
    """A map made without BTF, with the types of `rows`."""

    key_dtype, value_dtype = KEY, VALUE  # type: ignore[assignment]


def test_a_full_map_says_how_full_and_keeps_what_went_in(datapath: Harness) -> None:
    info = datapath.maps.open("endpoints4").info
    with held(maps.create(HASH, 4, 12, 10, flags=NO_PREALLOC, name="pt_small")) as descriptor:
        small = Map("small", syscalls.os.dup(descriptor), maps.info(descriptor), datapath.maps._types)
        with pytest.raises(KernelError, match=r"map small is full: 10 of 10 rows") as error:
            small.update(np.arange(20, dtype=np.uint32).view("V4"), np.zeros(20, "V12"))
        assert error.value.errno == errno.E2BIG
        assert len(small.read()[0]) == 10
    assert info.max_entries == 65536


def test_a_map_without_batches_is_written_and_read_row_by_row() -> None:
    with held(maps.create(ARRAY, 4, 8, 4, name="pt_array")) as descriptor:
        keys = np.arange(4, dtype=np.uint32)
        assert maps.update_singly(descriptor, keys, keys.astype(np.uint64)) == 0
        assert maps.read_singly(descriptor, np.dtype("<u4"), np.dtype("<u8"), 4)[1].tolist() == [0, 1, 2, 3]


def test_a_pin_that_was_replaced_is_opened_again(datapath: Harness) -> None:
    before = datapath.maps.open("ipcache4")
    with held(maps.create(HASH, 4, 16, 7, flags=NO_PREALLOC, name="ipcache4")) as other:
        path = datapath.maps.path("ipcache4")
        with held(syscalls.get(path)) as original:
            syscalls.pin(other, path)
            assert datapath.maps.open("ipcache4").info.max_entries == 7
            syscalls.pin(original, path)
    assert datapath.maps.open("ipcache4").info == before.info


def test_a_map_that_is_not_pinned_is_an_error_with_its_path(datapath: Harness) -> None:
    assert datapath.maps.find("nothing") is None
    with pytest.raises(KernelError, match="map nothing is not pinned at"):
        datapath.maps.open("nothing")


def test_waiting_for_running_programs_ends() -> None:
    wait_for_programs()
