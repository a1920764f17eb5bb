"""One pass: look at the branch and at the host, and true the host. Runs in the daemon's one writer thread.

The newest commit wins; one that fails never blocks a newer one, and drift is repaired to what was applied last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.daemon.outcome import Outcome
from reconciler.daemon.suspects import Suspects, reports
from reconciler.daemon.trigger import Work
from reconciler.engine.record import Record
from reconciler.errors import (
    ApplyError,
    Busy,
    KernelError,
    PlanStale,
    PlumbError,
    StoreError,
)
from reconciler.host import Host
from reconciler.observe.drift_log import DriftReport

log = logging.getLogger(__name__)

# What may well succeed at another try, without a new commit.
PASSING = (ApplyError, KernelError, StoreError, PlanStale, Busy)
REPAIR_ROUNDS = 3  # repairing a link brings back what hung on it, one round later


@dataclass(slots=True)
class Pass:
    """What one pass did. `outcome` is set when a commit was looked at, `error` when the host is not as it should be."""

    outcome: Outcome | None = None
    drift: list[DriftReport] = field(default_factory=list)
    error: PlumbError | None = None


class Convergence:
    """Remembers which commit was refused, so that it is not tried at every pass; nothing else."""

    def __init__(self, host: Host, suspects: Suspects, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._host = host
        self._suspects = suspects
        self._clock_ns = clock_ns
        self._refused: dict[str, PlumbError] = {}

    def run(self, work: Work) -> Pass:
        done = Pass()
        began = self._clock_ns()
        if self._host.hold.suspended:
            return done
        try:
            head = self._head(work)
            if head is not None:
                done.outcome = self._commit(head)
            if work.tables or work.everything:
                done.drift = self._repair(None if work.everything else frozenset(work.tables))
        except PlumbError as error:
            done.error = error
        self._suspects.forget(before_ns=began)
        if done.error is None and done.outcome is not None and done.outcome.error:
            done.error = self._refused.get(done.outcome.commit) or PlumbError(done.outcome.error)
        return done

    def _head(self, work: Work) -> str | None:
        """The branch's commit if this pass has to do something about it."""
        if not work.commit and not work.everything:
            return None
        head = self._host.resolve(self._host.config.ref)
        return head if work.commit or head != self._host.base else None

    def _commit(self, head: str) -> Outcome:
        began = self._clock_ns()
        node = self._host.config.node
        if head == self._host.hold.held:
            return Outcome(node, head, "held", 0.0, error="rolled back on this host; release it with: plumb resume")
        if head in self._refused:
            return Outcome(node, head, "refused", 0.0, error=str(self._refused[head]))
        try:
            record = self._host.converge(head)
        except PlumbError as error:
            passing = isinstance(error, PASSING)
            if not passing:
                self._refused = {head: error}
            log.error("not applied commit=%s error=%s", head, error)
            return Outcome(node, head, "failed" if passing else "refused", self._since_ms(began), error=str(error))
        self._refused = {}
        return Outcome(node, head, "applied" if record else "unchanged", self._since_ms(began), _counts(record))

    def _repair(self, tables: frozenset[str] | None) -> list[DriftReport]:
        found: list[DriftReport] = []
        began = self._clock_ns()
        for _ in range(REPAIR_ROUNDS):
            plan = self._host.drift(tables)
            if plan is None:
                break
            try:
                self._host.repair(plan)
            except KernelError:
                found += reports(plan, self._suspects, self._host.listing().fields(), began, None, self._host.base)
                raise
            done = self._clock_ns()
            found += reports(plan, self._suspects, self._host.listing().fields(), began, done, self._host.base)
        for report in found:
            log.warning("drift %s", report)
        return found

    def is_refusal(self, error: PlumbError) -> bool:
        """Whether only another commit helps."""
        return error in self._refused.values()

    def _since_ms(self, began_ns: int) -> float:
        return (self._clock_ns() - began_ns) / 1e6


def _counts(record: Record | None) -> dict[str, str]:
    return {table: str(counts) for table, counts in record.counts.items()} if record else {}
