"""A host in memory, or in one file: tables of both shapes with the kernel's limits and errors, and faults on demand.

Every row written, every row deleted and every flip is one step. Before each step the host may fail or call back, so a
test sees every state that a packet could see. Only what the real kernel cannot do on demand is faked: failing at the
n-th write, and being killed there.
"""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.engine.table import Flip, Table
from reconciler.errors import KernelError

KEY = np.dtype([("number", "<u4"), ("kind", "<u2"), ("pad", "<u2")])
VALUE = np.dtype([("content", "<u8")])

State = dict[str, dict[int, int]]  # table -> key -> content: every table as numbers, whatever its shape


@dataclass(frozen=True, slots=True)
class Item:
    content: int


def refused(number: int, what: str) -> KernelError:
    """As a real table raises it: caused by the OSError that the kernel's number stands for."""
    cause = OSError(number, os.strerror(number))
    error = KernelError(f"{what}: {errno.errorcode[number]}")
    error.__cause__ = cause
    return error


@dataclass
class FakeHost:
    """`rows` count now, `prepared` are those of the next generation. A table is full at `capacity[table]` rows."""

    rows: State = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    fail_at: Container[int] = ()
    before_step: Callable[[int], None] = lambda step: None
    path: Path | None = None
    prepared: State = field(default_factory=dict)
    missing: frozenset[tuple[str, int]] = frozenset()  # rows whose device is gone: (table, key)
    written_since_begin: set[str] = field(default_factory=set)
    steps: int = 0
    calls: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        self.steps += 1
        self.before_step(self.steps)
        if self.steps in self.fail_at:
            raise refused(errno.ENOMEM, what)

    def save(self) -> None:
        """What a crash leaves behind: one file, replaced at every step (SIGKILL loses no page that was written)."""
        if self.path is not None:
            fresh = self.path.with_suffix(".new")
            fresh.write_bytes(pickle.dumps((self.rows, self.prepared)))
            fresh.replace(self.path)

    def load(self) -> None:
        assert self.path is not None
        self.rows, self.prepared = pickle.loads(self.path.read_bytes())

    def change(self, rows: dict[int, int], table: str, upserts: Mapping[int, int], deletes: Collection[int]) -> None:
        for key, content in upserts.items():
            self.step(f"{table}: update {key}")
            if (table, key) in self.missing:
                raise refused(errno.ENODEV, f"{table}: update {key}")
            if key not in rows and len(rows) >= self.capacity.get(table, 1 << 20):
                raise refused(errno.E2BIG, f"{table}: update {key}")
            rows[key] = content
            self.save()
        for key in deletes:
            self.step(f"{table}: delete {key}")
            rows.pop(key, None)  # ENOENT is success
            self.save()


class FakeFlip:
    def __init__(self, host: FakeHost, *tables: str) -> None:
        self.host = host
        self.tables = tables

    def begin(self) -> None:
        self.host.calls.append("begin")
        self.host.prepared = {name: dict(self.host.rows[name]) for name in self.tables}
        self.host.written_since_begin.clear()
        self.host.save()

    def flip(self) -> None:
        self.host.calls.append("flip")
        self.host.step("flip")
        self.host.rows = {**self.host.rows, **self.host.prepared}
        self.host.prepared = {}
        self.host.save()

    def settle(self) -> None:
        self.host.calls.append("settle")


@dataclass
class FakeTable:
    host: FakeHost
    name: str
    after: tuple[str, ...] = ()
    flip: Flip | None = None

    def target(self) -> dict[int, int]:
        if self.flip is None:
            return self.host.rows[self.name]
        assert self.name not in self.host.written_since_begin, "a table behind a flip is written once"
        self.host.written_since_begin.add(self.name)
        return self.host.prepared[self.name]

    def found(self, only: Collection[int] | None) -> dict[int, int]:
        rows = self.host.rows[self.name]
        return dict(rows) if only is None else {key: rows[key] for key in only if key in rows}


class FakeDictTable(FakeTable):
    key_type: type = int
    row_type: type = Item

    def live(self, only: Collection[int] | None = None) -> DictRows:
        return dict_rows(self.found(only))

    def write(self, upserts: Mapping[int, Item], deletes: Collection[int]) -> None:
        self.host.calls.append(f"{self.name} +{len(upserts)} -{len(deletes)}")
        wanted = {key: item.content for key, item in upserts.items()}
        self.host.change(self.target(), self.name, wanted, deletes)


class FakeColumnTable(FakeTable):
    key_dtype: np.dtype[np.void] = KEY
    value_dtype: np.dtype[np.void] = VALUE

    def live(self, only: NDArray[np.void] | None = None) -> Columns:
        return columns(self.found(None if only is None else only["number"].tolist()))

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        self.host.calls.append(f"{self.name} +{len(upserts)} -{len(deletes)}")
        wanted = dict(zip(upserts.keys["number"].tolist(), upserts.values["content"].tolist(), strict=True))
        self.host.change(self.target(), self.name, wanted, deletes["number"].tolist())


def dict_rows(rows: Mapping[int, int]) -> DictRows:
    return DictRows({key: Item(content) for key, content in rows.items()})


def columns(rows: Mapping[int, int]) -> Columns:
    keys, values = np.zeros(len(rows), KEY), np.zeros(len(rows), VALUE)
    keys["number"], keys["kind"] = list(rows), 7
    values["content"] = list(rows.values())
    return Columns(keys, values)


PLAIN = ("routes", "addresses", "ipcache")
FLIPPED = ("frontends", "policy")
SHAPES: Mapping[str, Callable[[Mapping[int, int]], Rows]] = {
    "routes": dict_rows,
    "addresses": dict_rows,
    "ipcache": columns,
    "frontends": dict_rows,
    "policy": columns,
}


def tables_of(host: FakeHost) -> dict[str, Table]:
    """Five tables: plain ones in both shapes, and one of each shape behind the same flip."""
    for name in SHAPES:
        host.rows.setdefault(name, {})
    flip = FakeFlip(host, *FLIPPED)
    return {
        "routes": FakeDictTable(host, "routes", after=("addresses",)),
        "policy": FakeColumnTable(host, "policy", after=("ipcache", "frontends"), flip=flip),
        "ipcache": FakeColumnTable(host, "ipcache", after=("routes",)),
        "addresses": FakeDictTable(host, "addresses"),
        "frontends": FakeDictTable(host, "frontends", flip=flip),
    }


def rows_of(state: State) -> dict[str, Rows]:
    return {name: SHAPES[name](rows) for name, rows in state.items()}


def live_of(tables: Mapping[str, Table]) -> dict[str, Rows]:
    return {name: table.live() for name, table in tables.items()}


def copy_of(state: State) -> State:
    return {name: dict(rows) for name, rows in state.items()}
