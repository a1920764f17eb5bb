"""A map of a million rows: filled, audited, brought to what it should be; against a loop in C on the same shape.

`engine` is diff and batches on a plain map; `ipcache` is the table that daemons use, with its translation between
logical and kernel rows and its flip (`compare` reads all rows, `audit` is the daemon's, which asks the kernel for a sum
first); `one_rule_changed` is one policy row beside 100,000 of 100 subjects.
"""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import numpy as np

from reconciler.bpf import maps
from reconciler.bpf.maps import HASH
from reconciler.bpf.syscalls import held
from reconciler.engine.apply import repair
from reconciler.engine.diff import diff_columns
from reconciler.engine.plan import Plan
from reconciler.engine.rows import Columns
from reconciler.engine.seals import Seals
from reconciler.engine.table import ColumnTable
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE, POLICY_KEY, POLICY_VALUE, Verdict
from tests.bench.bed import Bed, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median

ROWS = 1_000_000
ROUNDS = 5
SUBJECTS, ROWS_EACH = 100, 1000
CHANGES = 50
_MAPPED = 0xFFFF << 32
_KEY = np.dtype([("number", "<u4"), ("random", "V8")])
_VALUE = np.dtype([("value", "V8")])
_SHAPES = {"engine": (12, 8), "ipcache": (4, 16)}  # bytes of key and value


class Native(NamedTuple):
    """Milliseconds of the loop in C."""

    fill: float
    read: float
    compare: float
    write: float


def measure() -> Iterator[Figure]:
    times: defaultdict[str, list[float]] = defaultdict(list)
    native: defaultdict[str, list[Native]] = defaultdict(list)
    with ExitStack() as stack:
        on = stack.enter_context(made(Bed("rows", map_sizes={"ipcache4": 1 << 20})))
        for _ in range(ROUNDS):
            for name, shape in _SHAPES.items():
                native[name].append(_native(*shape))
            _engine(times)
        _ipcache(on, times)
        yield from _figures(times, native)
        yield Figure("rows.one_rule_changed", _one_rule_changed(on), "ms")


def _figures(times: dict[str, list[float]], native: dict[str, list[Native]]) -> Iterator[Figure]:
    found = {name: median(some) for name, some in times.items()}
    for name, runs in native.items():
        best = Native(*(median(column) for column in zip(*runs, strict=True)))
        yield Figure(f"rows.{name}.fill", found[f"{name}.fill"], "ms", best.fill)
        yield Figure(f"rows.{name}.audit", found[f"{name}.audit"], "ms", best.read + best.compare)
        if compare := found.get(f"{name}.compare"):
            yield Figure(f"rows.{name}.compare", compare, "ms", best.read + best.compare)
        converge = found[f"{name}.converge"], best.read + best.compare + best.write
        yield Figure(f"rows.{name}.converge", converge[0], "ms", converge[1])
        yield Figure(f"rows.{name}.converge_to_c", converge[0] / converge[1], "times")


def _native(key_bytes: int, value_bytes: int) -> Native:
    command = [str(OBJECTS / "maps"), str(ROWS), str(key_bytes), str(value_bytes)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Native(*map(float, said.split()))


def _engine(times: dict[str, list[float]]) -> None:
    """As `native/maps.c` does it, step by step."""
    numbers = np.arange(ROWS, dtype=np.uint32)
    keys, values = np.zeros(ROWS, _KEY), np.zeros(ROWS, _VALUE)
    keys["number"] = numbers
    keys["random"] = np.random.default_rng(1).integers(0, 1 << 62, ROWS).view("V8")
    values["value"] = numbers.astype(np.uint64).view("V8")
    desired = Columns(keys, values)
    with held(maps.create(HASH, _KEY.itemsize, _VALUE.itemsize, ROWS, name="bench")) as map_:

        def live() -> Columns:
            return Columns(*maps.read(map_, _KEY, _VALUE, ROWS))

        times["engine.fill"].append(_ms(lambda: _written(map_, desired)))
        times["engine.audit"].append(_ms(lambda: _expect(diff_columns("map", desired, live(), True).after, 0)))
        changed = values.copy()
        changed["value"][: ROWS // 100] = np.uint64(ROWS)
        other = Columns(keys, changed)
        times["engine.converge"].append(
            _ms(lambda: _written(map_, _expect(diff_columns("map", other, live(), True).after, ROWS // 100)))
        )


def _written(map_: int, rows: Columns) -> None:
    assert not maps.update(map_, rows.keys, rows.values)


def _ipcache(on: Bed, times: dict[str, list[float]]) -> None:
    table, seals = on.columns["ipcache"], Seals()
    keys, values = np.zeros(ROWS, IPCACHE_KEY), np.zeros(ROWS, IPCACHE_VALUE)
    keys["low"] = _MAPPED | 20 << 24 | np.arange(ROWS, dtype=np.uint64)
    keys["bits"], values["identity"] = 128, 5000
    begun = Columns(keys, values)
    times["ipcache.fill"].append(_ms(partial(_converge, table, begun, ROWS)))
    for turn in range(1, ROUNDS + 1):
        times["ipcache.compare"].append(_ms(partial(_converge, table, begun, 0)))
        assert seals.diff(table, begun, False) is None
        times["ipcache.audit"].append(_ms(partial(seals.diff, table, begun, False)))
        changed = values.copy()
        changed["identity"][: ROWS // 100] = 5000 + turn
        begun = Columns(keys, changed)
        times["ipcache.converge"].append(_ms(partial(_converge, table, begun, ROWS // 100)))
    _converge(table, Columns(keys[:0], values[:0]), 0, complete=True)


def _converge(table: ColumnTable, desired: Columns, changes: int, *, complete: bool = False) -> None:
    """Read, compare, write; until packets see it and what was there before is gone."""
    delta = diff_columns(table.name, desired, table.live(), complete)
    if not complete:
        _expect(delta.after, changes)
    if delta:
        repair(Plan("", "", (delta,)), {table.name: table})
        assert table.flip is not None
        table.flip.begin()


def _one_rule_changed(on: Bed) -> float:
    """Milliseconds from a plan of one row to its flip, median."""
    table = on.columns["policy"]
    number = np.arange(SUBJECTS * ROWS_EACH)
    keys, values = np.zeros(len(number), POLICY_KEY), np.zeros(len(number), POLICY_VALUE)
    keys["subject"], keys["peer"] = 5000 + number // ROWS_EACH, 10_000 + number % ROWS_EACH
    keys["protocol"], keys["port"], keys["port_bits"] = 6, 80, 16
    values["verdict"], values["cookie"] = Verdict.ALLOW, 1
    desired = Columns(keys, values)
    _converge(table, desired, len(number))
    times = []
    for change in range(CHANGES):
        row = desired.take(np.array([change * ROWS_EACH + 500]))
        other = Columns(row.keys, row.values.copy())
        other.values["cookie"] = 2
        plan = Plan("", "", (diff_columns(table.name, other, row, False),))
        times.append(_ms(partial(repair, plan, {table.name: table})))
        assert table.flip is not None
        table.flip.begin()  # waits until the old rows are gone
    return median(times)


def _expect(rows: Columns, count: int) -> Columns:
    assert len(rows) == count, f"{len(rows)} rows differ, not {count}"
    return rows


def _ms(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000
