"""Random states of the fake host, and the plan from one to another."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from reconciler.engine.journal import Journal
from reconciler.engine.plan import Plan, diff

from .fake import SHAPES, FakeHost, State, copy_of, live_of, rows_of, tables_of

OLD, NEW = "a" * 40, "b" * 40

rows = st.dictionaries(st.integers(0, 8), st.integers(0, 3), max_size=6)
states = st.fixed_dictionaries(dict.fromkeys(SHAPES, rows))


def host_with(state: State, path: Path | None = None) -> FakeHost:
    host = FakeHost(copy_of(state), path=path)
    host.save()
    return host


def plan_between(before: State, after: State) -> Plan:
    return diff(NEW, OLD, rows_of(after), live_of(tables_of(host_with(before))), complete=True)


def journal_in(directory: Path) -> Journal:
    return Journal(directory / "journal")
