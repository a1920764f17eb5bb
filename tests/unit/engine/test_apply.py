"""A transaction gives the new state, or leaves the old one exactly."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.apply import apply, repair
from reconciler.engine.plan import Plan, diff
from reconciler.engine.record import Record, Result
from reconciler.engine.table import Table
from reconciler.errors import ApplyError, Busy, KernelError, PlanStale, PlumbError, ProbeFailed

from .fake import FLIPPED, FakeHost, State, live_of, rows_of, tables_of
from .states import NEW, OLD, host_with, journal_in, plan_between, states

EMPTY: State = {"routes": {}, "addresses": {}, "ipcache": {}, "frontends": {}, "policy": {}}


@dataclass
class FakeProbe:
    """Complains as often as it is told to. `seen` are the times it was checked."""

    complaints: int
    deadline_s: float = 1.0
    name: str = "web reaches db"
    seen: int = 0

    def check(self) -> str | None:
        self.seen += 1
        return "connection refused" if self.seen <= self.complaints else None


@dataclass
class FakeClock:
    now_s: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


def run(plan: Plan, host: FakeHost, probes: Iterable[FakeProbe] = ()) -> Record:
    """Apply under a journal of its own that must be closed afterwards."""
    clock = FakeClock()
    with TemporaryDirectory() as directory:
        journal = journal_in(Path(directory))
        try:
            return apply(
                plan, tables_of(host), journal, lock=nullcontext(), probes=tuple(probes), clock=clock, pause=clock.pause
            )
        finally:
            assert not journal.unfinished


def rejection(plan: Plan, host: FakeHost) -> PlumbError | None:
    try:
        run(plan, host)
    except PlumbError as error:
        return error
    return None


@settings(deadline=None)
@given(before=states, after=states)
def test_applying_the_difference_gives_the_desired_state(before: State, after: State) -> None:
    host = host_with(before)
    run(plan_between(before, after), host)
    assert host.rows == after
    assert not diff(NEW, OLD, rows_of(after), live_of(tables_of(host)), complete=True)


@settings(deadline=None)
@given(before=states, after=states)
def test_applying_the_inverse_restores(before: State, after: State) -> None:
    host = host_with(before)
    plan = plan_between(before, after)
    run(plan, host)
    run(plan.inverse(), host)
    assert host.rows == before


@settings(deadline=None)
@given(before=states, after=states)
def test_a_repair_gives_the_desired_state_and_may_be_repeated(before: State, after: State) -> None:
    host = host_with(before)
    plan = plan_between(before, after)
    repair(plan, tables_of(host))
    repair(plan, tables_of(host))
    assert host.rows == after


@settings(deadline=None, max_examples=60)
@given(before=states, after=states, data=st.data())
def test_a_write_that_fails_anywhere_leaves_the_old_state(before: State, after: State, data: st.DataObject) -> None:
    plan = plan_between(before, after)
    whole = host_with(before)
    run(plan, whole)
    failing = data.draw(st.integers(1, max(whole.steps, 1)))
    host = replace(host_with(before), fail_at={failing})
    error = rejection(plan, host)
    assert host.rows == (before if whole.steps else after)
    assert isinstance(error, ApplyError) == bool(whole.steps)


@settings(deadline=None)
@given(before=states, after=states, spare=st.integers(0, 2))
def test_a_full_table_leaves_the_old_state_or_holds_the_new_one(before: State, after: State, spare: int) -> None:
    capacity = {name: max(len(before[name]), len(after[name])) + spare for name in before}
    host = replace(host_with(before), capacity=capacity)
    error = rejection(plan_between(before, after), host)
    assert host.rows == (after if error is None else before)
    assert error is None or "E2BIG" in str(error)


@settings(deadline=None)
@given(before=states, after=states)
def test_probes_that_fail_take_everything_back(before: State, after: State) -> None:
    host = host_with(before)
    with pytest.raises(ProbeFailed, match="web reaches db: connection refused"):
        run(plan_between(before, after), host, [FakeProbe(complaints=1 << 20)])
    assert host.rows == before


@settings(deadline=None, max_examples=60)
@given(before=states, after=states, fails=st.booleans())
def test_a_packet_sees_one_commit_at_every_step(before: State, after: State, fails: bool) -> None:
    host = host_with(before)
    seen = []
    host.before_step = lambda step: seen.append({name: dict(host.rows[name]) for name in FLIPPED})
    probes = [FakeProbe(complaints=1 << 20)] if fails else []
    try:
        run(plan_between(before, after), host, probes)
    except ProbeFailed:
        assert host.rows == before
    commits = [{name: state[name] for name in FLIPPED} for state in (before, after)]
    assert all(view in commits for view in seen)


def test_rows_come_in_order_before_the_flip_and_go_in_reverse_after_it() -> None:
    before = {name: {1: 1} for name in EMPTY}
    after = {name: {2: 2} for name in EMPTY}
    host = host_with(before)
    run(plan_between(before, after), host)
    assert host.calls == [
        "addresses +1 -0",
        "begin",
        "frontends +1 -1",
        "routes +1 -0",
        "ipcache +1 -0",
        "policy +1 -1",
        "flip",
        "ipcache +0 -1",
        "routes +0 -1",
        "addresses +0 -1",
    ]


def gated(host: FakeHost, *, same_way: bool) -> dict[str, Table]:
    """Tables of which `routes` is a gate, whose rows all lead the same way, or none does."""
    tables = tables_of(host)
    tables["routes"].gate = True  # type: ignore[union-attr]
    tables["routes"].is_same_way = lambda before, after: same_way  # type: ignore[union-attr]
    return tables


ROUTED = {name: {1: 1, 2: 1} for name in EMPTY} | {"addresses": {}, "ipcache": {}, "frontends": {}}
REROUTED = {name: {2: 2, 3: 3} for name in EMPTY} | {"addresses": {}, "ipcache": {}, "frontends": {}}


def test_a_gate_closes_before_everything_and_opens_when_no_packet_of_the_old_state_is_left() -> None:
    host = host_with(ROUTED)
    tables = gated(host, same_way=False)
    with TemporaryDirectory() as directory:
        apply(plan_between(ROUTED, REROUTED), tables, journal_in(Path(directory)), lock=nullcontext())
    assert host.calls == ["routes +0 -2", "begin", "policy +2 -1", "flip", "settle", "routes +2 -0"]
    assert host.rows == REROUTED


def test_a_row_of_a_gate_that_leads_the_same_way_as_before_is_never_away() -> None:
    host = host_with(ROUTED)
    tables = gated(host, same_way=True)
    with TemporaryDirectory() as directory:
        apply(plan_between(ROUTED, REROUTED), tables, journal_in(Path(directory)), lock=nullcontext())
    assert host.calls == ["routes +0 -1", "begin", "policy +2 -1", "flip", "settle", "routes +2 -0"]
    assert host.rows == REROUTED


def test_a_table_that_is_not_touched_is_neither_read_nor_written() -> None:
    host = host_with(EMPTY)
    run(plan_between(EMPTY, EMPTY | {"routes": {1: 1}}), host)
    assert host.calls == ["routes +1 -0"]


def test_a_stale_plan_names_table_and_row_and_writes_nothing() -> None:
    plan = plan_between(EMPTY | {"policy": {1: 1}}, EMPTY | {"policy": {1: 2}})
    host = host_with(EMPTY | {"policy": {1: 3}})
    with pytest.raises(PlanStale, match=r"policy: number=1 kind=7 is content=3, expected content=1"):
        run(plan, host)
    assert host.steps == 0


def test_a_row_that_appeared_meanwhile_makes_the_plan_stale() -> None:
    plan = plan_between(EMPTY, EMPTY | {"routes": {1: 2}})
    with pytest.raises(PlanStale, match="routes: 1 is content=2, expected absent"):
        run(plan, host_with(EMPTY | {"routes": {1: 2}}))


def test_other_rows_may_change_without_making_the_plan_stale() -> None:
    host = host_with(EMPTY | {"routes": {5: 5}})
    run(plan_between(EMPTY, EMPTY | {"routes": {1: 2}}), host)
    assert host.rows["routes"] == {1: 2, 5: 5}


def test_rows_that_do_not_stay_are_named_and_taken_back() -> None:
    host = host_with(EMPTY)
    plan = plan_between(EMPTY, EMPTY | {"policy": {1: 1}, "routes": {1: 1, 2: 2}})

    def steal(step: int) -> None:
        host.rows["routes"].pop(1, None)

    host.before_step = steal
    with pytest.raises(
        ApplyError, match=r"read back differ from those written: routes: 1 is absent, expected content=1"
    ):
        run(plan, host)
    assert host.rows == EMPTY


def test_undoing_makes_room_where_something_else_took_it() -> None:
    full = {1: 1, 2: 2}
    host = replace(host_with(EMPTY | {"routes": full}), capacity={"routes": 3})
    plan = plan_between(EMPTY | {"routes": full}, EMPTY | {"routes": {2: 2, 3: 3}})

    class Intruder(FakeProbe):
        def check(self) -> str | None:
            host.rows["routes"][9] = 9
            return "connection refused"

    with pytest.raises(ProbeFailed):
        run(plan, host, [Intruder(complaints=1)])
    assert host.rows["routes"] == {1: 1, 2: 2, 9: 9}


def test_undoing_that_fails_says_so_and_leaves_the_entry_open_for_recovery(tmp_path: Path) -> None:
    before, after = EMPTY | {"routes": {1: 1}}, EMPTY | {"routes": {2: 2}, "policy": {1: 1}}
    host = replace(host_with(before), fail_at=range(2, 1 << 20))
    journal = journal_in(tmp_path)
    with pytest.raises(ApplyError, match=r"taking the changes back failed.*entry stays open"):
        apply(plan_between(before, after), tables_of(host), journal, lock=nullcontext())
    assert journal.unfinished
    with pytest.raises(ApplyError, match="not undone yet"):
        apply(plan_between(host.rows, after), tables_of(host), journal, lock=nullcontext())
    host.fail_at = ()
    journal.recover(tables_of(host))
    assert host.rows == before


def test_an_interrupt_takes_everything_back_and_stays_an_interrupt() -> None:
    host = host_with(EMPTY)

    class Interrupted(FakeProbe):
        def check(self) -> str | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan_between(EMPTY, EMPTY | {"policy": {1: 1}}), host, [Interrupted(complaints=1)])
    assert host.rows == EMPTY


def test_a_probe_is_tried_until_it_holds() -> None:
    probe = FakeProbe(complaints=5)
    run(plan_between(EMPTY, EMPTY | {"policy": {1: 1}}), host_with(EMPTY), [probe])
    assert probe.seen == 6


def test_a_probe_is_tried_once_even_without_time() -> None:
    probe = FakeProbe(complaints=0, deadline_s=0.0)
    run(plan_between(EMPTY, EMPTY | {"policy": {1: 1}}), host_with(EMPTY), [probe])
    assert probe.seen == 1


def test_probes_of_a_commit_without_changes_are_tried_too() -> None:
    with pytest.raises(ProbeFailed):
        run(plan_between(EMPTY, EMPTY), host_with(EMPTY), [FakeProbe(complaints=1 << 20)])


def test_the_cause_of_a_failed_apply_is_kept() -> None:
    host = replace(host_with(EMPTY), fail_at={1})
    error = rejection(plan_between(EMPTY, EMPTY | {"routes": {1: 1}}), host)
    assert isinstance(error, ApplyError)
    assert isinstance(error.__cause__, KernelError)
    assert str(error) == "routes: update 1: ENOMEM; the previous state was restored (routes +1 ~0 -0 taken back)"


def test_a_host_held_by_another_is_left_alone() -> None:
    class Held(nullcontext[None]):
        def __enter__(self) -> None:
            raise Busy("this host is held by plumb daemon (pid 1)")

    host = host_with(EMPTY)
    plan = plan_between(EMPTY, EMPTY | {"routes": {1: 1}})
    with TemporaryDirectory() as directory, pytest.raises(Busy):
        apply(plan, tables_of(host), journal_in(Path(directory)), lock=Held())
    assert host.rows == EMPTY


def test_tables_that_wait_for_each_other_are_an_error_before_anything_is_written() -> None:
    host = host_with(EMPTY)
    tables = tables_of(host)
    tables["addresses"].after = ("ipcache",)
    plan = plan_between(EMPTY, EMPTY | {"routes": {1: 1}, "policy": {1: 1}})
    with TemporaryDirectory() as directory, pytest.raises(ApplyError, match=r"tables wait for each other: .*routes"):
        apply(plan, tables, journal_in(Path(directory)), lock=nullcontext())
    assert host.steps == 0


def test_a_plan_for_a_table_that_the_host_lacks_is_an_error() -> None:
    host = host_with(EMPTY)
    tables = {name: table for name, table in tables_of(host).items() if name != "routes"}
    plan = plan_between(EMPTY, EMPTY | {"routes": {1: 1}})
    with TemporaryDirectory() as directory, pytest.raises(ApplyError, match="routes, which this host does not have"):
        apply(plan, tables, journal_in(Path(directory)), lock=nullcontext())


def test_a_table_may_come_after_one_that_the_host_lacks() -> None:
    host = host_with(EMPTY)
    tables = tables_of(host)
    tables["addresses"].after = ("links",)
    repair(plan_between(EMPTY, EMPTY | {"routes": {1: 1}, "addresses": {1: 1}}), tables)
    assert host.calls == ["addresses +1 -0", "routes +1 -0"]


@pytest.mark.parametrize(
    ("complete", "left"), [(True, {2: 2}), (False, {1: 1, 2: 2}), ({}, {1: 1, 2: 2}), ({"routes": True}, {2: 2})]
)
def test_a_restart_prunes_nothing_before_it_knows_everything(complete: bool | dict[str, bool], left: object) -> None:
    host = host_with(EMPTY | {"routes": {1: 1}})
    tables = tables_of(host)
    repair(diff(NEW, OLD, rows_of({"routes": {2: 2}}), live_of(tables), complete), tables)
    assert host.rows["routes"] == left


def test_the_record_says_what_was_applied(tmp_path: Path) -> None:
    host = host_with(EMPTY)
    plan = plan_between(EMPTY, EMPTY | {"routes": {1: 1, 2: 2}})
    journal = journal_in(tmp_path)
    record = apply(plan, tables_of(host), journal, lock=nullcontext())
    assert journal.history() == [replace(record, duration_ms=round(record.duration_ms, 3))]
    assert (record.commit, record.base, record.digest, record.result) == (NEW, OLD, plan.digest, Result.APPLIED)
    assert {name: str(counts) for name, counts in record.counts.items()} == {"routes": "+2 ~0 -0"}


def test_the_record_of_what_was_taken_back_says_why(tmp_path: Path) -> None:
    host = replace(host_with(EMPTY), fail_at={1})
    journal = journal_in(tmp_path)
    with pytest.raises(ApplyError):
        apply(plan_between(EMPTY, EMPTY | {"routes": {1: 1}}), tables_of(host), journal, lock=nullcontext())
    assert [(r.result, r.reason) for r in journal.history()] == [
        (Result.ROLLED_BACK, "KernelError: routes: update 1: ENOMEM")
    ]
