"""One plan as one transaction: it is applied, proved and remembered, or this host is as it was before.

apply(plan, tables, journal, lock=host_lock(path, "plumb apply"), probes=()) -> Record
repair(plan, tables) -> None
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from reconciler.engine.journal import Entry, Journal
from reconciler.engine.plan import Plan
from reconciler.engine.probes import Clock, Pause, Probe, hold
from reconciler.engine.record import Record
from reconciler.engine.recovery import one_by_one
from reconciler.engine.render import mismatches
from reconciler.engine.table import Table
from reconciler.engine.transaction import in_order, restore, stale, unmet, write
from reconciler.errors import ApplyError, PlanStale, ProbeFailed

log = logging.getLogger(__name__)


def apply(
    plan: Plan,
    tables: Mapping[str, Table],
    journal: Journal,
    *,
    lock: AbstractContextManager[object],
    probes: Sequence[Probe] = (),
    notes: Sequence[str] = (),
    clock: Clock = time.monotonic,
    pause: Pause = time.sleep,
) -> Record:
    """Write the plan; when this returns its rows are there, its probes have held and the journal knows it.

    `lock` is `host_lock(...)`, or `nullcontext()` for who holds it already. A plan without changes is probed and
    remembered all the same, with the `notes`. Only the rows that the plan touches are read.

    Raises Busy; PlanStale if one of those rows is not what the plan was made from (nothing is written); ApplyError or
    ProbeFailed after everything was taken back; KernelError if the rows cannot even be read. If taking back fails too,
    ApplyError says so and the journal entry stays open for `Journal.recover`.
    """
    with lock:
        in_order(plan.deltas, tables)
        if changed := stale(plan.deltas, tables):
            raise PlanStale(f"rows changed since the plan was made: {mismatches(changed)}")
        entry = journal.open(plan, notes)
        try:
            write(plan.deltas, tables)
            if left := unmet(plan.deltas, tables):
                raise ApplyError(f"rows read back differ from those written: {mismatches(left)}")
            hold(probes, clock, pause)
            record = journal.commit(entry)
        except BaseException as cause:
            _take_back(plan, tables, journal, entry, cause)
            raise
    log.info("applied commit=%s %s ms=%.1f", plan.commit, _summary(plan), record.duration_ms)
    return record


def repair(plan: Plan, tables: Mapping[str, Table]) -> None:
    """Write the plan, without journal, probes or reading again: for drift, where every pass begins anew.

    Idempotent; the caller holds the host lock. Where a row cannot be written (its namespace is gone) the others are all
    the same. Raises what a table raised first; the next pass sees what is left.
    """
    try:
        write(plan.deltas, tables)
    except Exception:
        one_by_one(plan.deltas, tables)
        raise


def _take_back(plan: Plan, tables: Mapping[str, Table], journal: Journal, entry: Entry, cause: BaseException) -> None:
    """Undo, and raise the cause as what it means for the caller; a cause that is no Exception is left to it."""
    reason = f"{type(cause).__name__}: {cause}"
    try:
        restore([delta.inverse() for delta in plan.deltas], tables)
        journal.take_back(entry, reason)
    except Exception as failure:
        raise ApplyError(
            f"{cause}; and taking the changes back failed: {failure}; the journal entry stays open",
            remedy="it is undone at the next start of the daemon; plumb status shows what differs",
        ) from failure
    if isinstance(cause, Exception):
        kind = ProbeFailed if isinstance(cause, ProbeFailed) else ApplyError
        said = f"{cause}; the previous state was restored ({_summary(plan)} taken back)"
        raise kind(said, remedy=getattr(cause, "remedy", "")) from cause


def _summary(plan: Plan) -> str:
    return ", ".join(f"{table} {counts}" for table, counts in plan.counts.items()) or "no rows"
