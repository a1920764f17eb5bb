"""What was found right is not read again while the kernel's own sum over it is the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reconciler.engine.rows import Columns
from reconciler.engine.seals import Seals
from reconciler.kernel.ipcache import IpcacheTable

from .harness import Harness, ipcache_rows
from .test_ipcache_table import State, as_set, row

STATE: State = {
    row("10.1.1.1"): (2, 1),
    row("10.1.1.2"): (3, 0),
    row("fd00::1"): (3, 0),
    row("10.1.0.0/16"): (4, 0),
    row("fd00::/64"): (4, 0),
}


class Counting(IpcacheTable):
    """The real table; `reads` says how often its rows were read out."""

    reads = 0
    state_pays_from = 0

    def live(self, only: object = None) -> Columns:
        self.reads += 1
        return super().live(only)  # type: ignore[arg-type]


@pytest.fixture
def table(datapath: Harness) -> Counting:
    datapath.become(ipcache=STATE)
    datapath.generation.finish()
    return Counting(datapath.maps, datapath.generation)


def test_the_second_comparison_reads_no_rows(table: Counting) -> None:
    seals, desired = Seals(), ipcache_rows(STATE)
    assert [seals.diff(table, desired, True) for _ in range(3)] == [None] * 3
    assert table.reads == 1


def test_few_rows_are_read_sooner_than_summed_up(datapath: Harness, table: Counting) -> None:
    seals, desired = Seals(), ipcache_rows(STATE)
    table.state_pays_from = len(desired) + 1
    assert [seals.diff(table, desired, True) for _ in range(3)] == [None] * 3
    assert table.reads == 3


def test_other_rows_are_compared_anew(table: Counting) -> None:
    seals = Seals()
    assert seals.diff(table, ipcache_rows(STATE), True) is None
    delta = seals.diff(table, ipcache_rows({**STATE, row("10.1.1.3"): (3, 0)}), True)
    assert delta is not None
    assert len(delta.upserts()) == 1


def overwrite(datapath: Harness, map_name: str) -> None:
    map_ = datapath.maps.open(map_name)
    keys, values = map_.read()
    values["identity"] = 9
    map_.update(keys[:1], values[:1])


def remove(datapath: Harness, map_name: str) -> None:
    map_ = datapath.maps.open(map_name)
    map_.delete(map_.read()[0][:1])


def add(datapath: Harness, map_name: str) -> None:
    map_ = datapath.maps.open(map_name)
    keys, values = map_.read()
    other = keys[:1].copy().view(np.uint8)
    other[-1] ^= 1
    map_.update(other.view(keys.dtype), values[:1])


@pytest.mark.parametrize("map_name", ["ipcache4", "ipcache6", "cidr4", "cidr6"])
@pytest.mark.parametrize("tamper", [overwrite, remove, add])
def test_a_row_that_somebody_changed_breaks_the_seal(
    datapath: Harness, table: Counting, map_name: str, tamper: Callable[[Harness, str], None]
) -> None:
    seals, desired = Seals(), ipcache_rows(STATE)
    assert seals.diff(table, desired, True) is None
    tamper(datapath, map_name)
    reads = table.reads
    seals.diff(table, desired, True)
    assert table.reads == reads + 1


def test_two_rows_that_swap_their_values_break_the_seal(datapath: Harness, table: Counting) -> None:
    seals, desired = Seals(), ipcache_rows(STATE)
    assert seals.diff(table, desired, True) is None
    map_ = datapath.maps.open("ipcache4")
    keys, values = map_.read()
    map_.update(keys, values[::-1].copy())
    assert seals.diff(table, desired, True) is not None


def test_a_seal_is_whole_again_after_a_repair(datapath: Harness, table: Counting) -> None:
    seals, desired = Seals(), ipcache_rows(STATE)
    assert seals.diff(table, desired, True) is None
    overwrite(datapath, "ipcache4")
    delta = seals.diff(table, desired, True)
    assert delta is not None
    table.mend(delta.upserts(), delta.deletes())  # type: ignore[arg-type]
    assert as_set(table.live()) == as_set(desired)
    reads = table.reads
    assert [seals.diff(table, desired, True) for _ in range(2)] == [None] * 2
    assert table.reads == reads + 1
