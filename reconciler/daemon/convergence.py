"""One pass: look at the branch and at the host, and true the host. Runs in the daemon's one writer thread.

The newest commit wins; one that fails never blocks a newer one, and drift is repaired to what was applied last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from reconciler.daemon.failure import Failure, failed
from reconciler.daemon.mending import Mending
from reconciler.daemon.outcome import Outcome
from reconciler.daemon.suspects import Suspects, reports
from reconciler.daemon.trigger import Work
from reconciler.engine.plan import Plan
from reconciler.engine.record import Record
from reconciler.errors import PlumbError
from reconciler.host import Host
from reconciler.host.absent import Absent, named, unexplained
from reconciler.observe.drift_log import DriftReport

log = logging.getLogger(__name__)

REPAIR_ROUNDS = 3  # repairing a link brings back what hung on it, one round later


@dataclass(slots=True)
class Pass:
    """What one pass did. `outcome` is set when a commit was looked at, `error` when the host is not as it should be.

    `again_s`: after that time a commit that failed should be tried again.
    """

    outcome: Outcome | None = None
    drift: list[DriftReport] = field(default_factory=list)
    error: PlumbError | None = None
    again_s: float | None = None


class Convergence:
    """Remembers which commit failed, so that it is not tried at every pass, and which drift stands.

    `is_held`: whether the branch is at a commit that somebody rolled back here.
    """

    def __init__(
        self, host: Host, suspects: Suspects, mending: Mending, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._host = host
        self._suspects = suspects
        self._mending = mending
        self._clock_ns = clock_ns
        self._failure: Failure | None = None
        self.is_held = False
        self._absent = Absent()
        self._standing: set[tuple[str, str, tuple[str, ...]]] = set()

    def run(self, work: Work) -> Pass:
        done = Pass()
        began = self._clock_ns()
        if suspended := self._host.hold.suspended:
            if work.commit:
                done.outcome = self._suspended(suspended)
            return done
        if work.news:
            with _noting(done):
                self._hear()
        with _noting(done):
            head = self._head(work)
            if head is not None:
                done.outcome = self._commit(head, work)
        with _noting(done):
            if work.tables or work.everything:
                self._repair(None if work.everything else frozenset(work.tables), done.drift)
        for report in done.drift:
            log.warning("drift %s", report)
        done.drift[:0] = self._mending.told()
        self._tell_absent()
        self._suspects.forget(before_ns=began)
        if self._failure is not None:
            done.error = done.error or self._failure.error
            due_ns = self._failure.due_ns
            done.again_s = None if due_ns is None else max(0.0, (due_ns - self._clock_ns()) / 1e9)
        return done

    def _hear(self) -> None:
        """The same commit, with what other hosts say now: no drift, and nothing for the journal."""
        if plan := self._host.hear():
            self._host.repair(plan)
            log.debug("heard changes=%s", plan.counts)

    def _suspended(self, reason: str) -> Outcome | None:
        """What is said of the branch's commit to those who wait for it."""
        try:
            head = self._host.resolve(self._host.config.ref)
        except PlumbError:
            return None
        return Outcome(self._host.config.node, head, "suspended", 0.0, error=f"{reason}; go on with: plumb resume")

    def _head(self, work: Work) -> str | None:
        """The branch's commit if this pass has to do something about it."""
        if not work.commit and not work.everything:
            return None
        head = self._host.resolve(self._host.config.ref)
        if work.commit or head != self._host.base:
            return head
        self._failure, self.is_held = None, False
        return None

    def _commit(self, head: str, work: Work) -> Outcome | None:
        """None if it failed before, it is not time yet to try it again, and nobody asks."""
        began = self._clock_ns()
        node = self._host.config.node
        self.is_held = head == self._host.hold.held != self._host.base
        if self.is_held:
            self._failure = None
            return Outcome(node, head, "held", 0.0, error="rolled back on this host; release it with: plumb resume")
        earlier = self._failure if self._failure and self._failure.commit == head else None
        if earlier is not None and not earlier.is_worth_a_try(began, work.again):
            return _failing(node, earlier) if work.commit else None
        try:
            record = self._host.converge(head)
        except PlumbError as error:
            self._failure = failed(head, error, earlier, self._clock_ns())
            log.error("not applied commit=%s error=%s next=%s", head, error, error.remedy)
            return _failing(node, self._failure, self._since_ms(began))
        self._failure = None
        result, notes = "applied" if record else "unchanged", named(self._host.absent.workloads)
        return Outcome(node, head, result, self._since_ms(began), _counts(record), notes=notes)

    def _repair(self, tables: frozenset[str] | None, told: list[DriftReport]) -> None:
        """Raises what stands in the way of a row, after all others were put right."""
        began = self._clock_ns()
        left = self._host.drift(tables, self._mending.run)
        for last in (False,) * (REPAIR_ROUNDS - 1) + (True,):
            if left is None:
                break
            plan, error, done = left, self._attempt(left), self._clock_ns()
            left = self._host.drift(tables, self._mending.run)
            fields, commit = self._host.listing().fields(), self._host.base
            plan = unexplained(plan, self._moved())
            found = reports(plan, left, self._suspects, fields, began, done, commit)
            told += [one for one in found if one.repaired_ms is not None or ((error or last) and self._is_news(one))]
            if error is not None:
                raise error
        self._standing = {one for one in self._standing if tables is not None and one[0] not in tables}

    def _moved(self) -> Absent:
        """The workloads whose namespaces came or went since the last pass."""
        now, target = self._host.absent, self._host.target
        return Absent.of({*now.workloads} ^ {*self._absent.workloads}, target.facts) if target else Absent()

    def _tell_absent(self) -> None:
        """Each is told of once, and once when it waits no more."""
        now = self._host.absent
        for one in now.workloads:
            if one not in self._absent.workloads:
                log.warning("waiting %s", one)
        for one in self._absent.workloads:
            if one not in now.workloads:
                log.info("waiting no more workload=%s for=%s", one.workload, one.cgroup or one.netns)
        self._absent = now

    def _attempt(self, plan: Plan) -> PlumbError | None:
        try:
            self._host.repair(plan)
        except PlumbError as error:
            return error
        return None

    def _is_news(self, report: DriftReport) -> bool:
        """Whether this was told of already, and stands since."""
        drift = report.table, report.what, report.keys
        known = drift in self._standing
        self._standing.add(drift)
        return not known

    def is_refusal(self, error: PlumbError) -> bool:
        """Whether only another commit helps."""
        return self._failure is not None and error is self._failure.error and self._failure.due_ns is None

    def _since_ms(self, began_ns: int) -> float:
        return (self._clock_ns() - began_ns) / 1e6


@contextmanager
def _noting(done: Pass) -> Iterator[None]:
    """What stands in the way of one half of a pass does not keep it from the other; the first error counts."""
    try:
        yield
    except PlumbError as error:
        done.error = done.error or error


def _failing(node: str, failure: Failure, took_ms: float = 0.0) -> Outcome:
    error = failure.error
    return Outcome(node, failure.commit, failure.result, took_ms, error=str(error), remedy=error.remedy)


def _counts(record: Record | None) -> dict[str, str]:
    return {table: str(counts) for table, counts in record.counts.items()} if record else {}
