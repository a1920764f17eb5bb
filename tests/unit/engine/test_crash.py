"""Killed at any write, the host has the old state or the new one after its next start."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings

from reconciler.engine.apply import apply
from reconciler.engine.record import Result

from .fake import FLIPPED, FakeHost, State, tables_of
from .states import host_with, journal_in, plan_between, states


def killed_at(step: int) -> Callable[[int], None]:
    return lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == step else None


def apply_in_a_child(host: FakeHost, before: State, after: State, directory: Path) -> bool:
    """Whether the child lived to the end of the transaction."""
    plan = plan_between(before, after)
    return survives(lambda: apply(plan, tables_of(host), journal_in(directory), lock=nullcontext()))


def survives(action: Callable[[], object]) -> bool:
    """Run it in a process of its own: true if it ended, false if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return not os.WIFSIGNALED(status)


def state_after_crash_and_recovery(before: State, after: State, step: int) -> tuple[bool, State, list[State]]:
    """Whether the child survived, what the host holds after recovery, what packets saw before and while it ran."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        host = host_with(before, directory / "host")
        host.before_step = killed_at(step)
        survived = apply_in_a_child(host, before, after, directory)
        host.before_step = lambda step: seen.append({name: dict(host.rows[name]) for name in FLIPPED})
        host.load()
        seen: list[State] = [{name: dict(host.rows[name]) for name in FLIPPED}]
        journal = journal_in(directory)
        record = journal.recover(tables_of(host))
        assert (record is None) == survived
        assert not journal.unfinished
        assert journal.history()[0].result is (Result.APPLIED if survived else Result.ROLLED_BACK)
        return survived, host.rows, seen


@settings(deadline=None, max_examples=12)
@given(before=states, after=states)
def test_killed_at_any_write_the_next_start_finds_the_old_state_or_the_new_one(before: State, after: State) -> None:
    survived, step = False, 0
    while not survived:
        step += 1
        survived, rows, seen = state_after_crash_and_recovery(before, after, step)
        assert rows == (after if survived else before)
        commits = [{name: state[name] for name in FLIPPED} for state in (before, after)]
        assert all(view in commits for view in seen)


def test_killed_while_recovering_the_next_start_recovers() -> None:
    before: State = {"routes": {1: 1, 2: 2}, "policy": {1: 1}, "addresses": {}, "ipcache": {}, "frontends": {}}
    after: State = {"routes": {3: 3}, "policy": {2: 2}, "addresses": {}, "ipcache": {}, "frontends": {}}
    with TemporaryDirectory() as name:
        directory = Path(name)
        host = host_with(before, directory / "host")
        host.before_step = killed_at(5)
        assert not apply_in_a_child(host, before, after, directory)
        host.load()
        for step in range(2, 4):
            host.steps = 0
            host.before_step = killed_at(step)
            assert not survives(lambda: journal_in(directory).recover(tables_of(host)))
            host.load()
        host.before_step = lambda step: None
        journal_in(directory).recover(tables_of(host))
        assert host.rows == before
