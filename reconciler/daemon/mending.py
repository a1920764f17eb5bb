"""Rows that somebody touched are put right ahead of all that waits for the writer thread, and between tables of a pass.

The kernel told which rows it may be, so these alone are looked at. A pass over whole tables follows each time: what
this misses or cannot do is left to it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from reconciler.daemon.suspects import Suspects, reports
from reconciler.engine.plan import Plan
from reconciler.engine.uncollected import uncollected
from reconciler.errors import PlumbError
from reconciler.host import Host
from reconciler.host.touched import Touched
from reconciler.observe.drift_log import DriftReport

log = logging.getLogger(__name__)

TOUCHED_AT_ONCE = 256  # more is no short cut

Submit = Callable[[Callable[[], object]], object]  # has it run in the writer thread
Poke = Callable[..., None]  # as `Trigger.poke_threadsafe`


class Mending:
    """`touch` belongs to the event loop, all else to the writer thread."""

    def __init__(self, host: Host, suspects: Suspects, submit: Submit, poke: Poke) -> None:
        self._host = host
        self._suspects = suspects
        self._submit = submit
        self._poke = poke
        self._touched: deque[Touched] = deque(maxlen=TOUCHED_AT_ONCE)
        self._told: list[DriftReport] = []

    def touch(self, touched: Touched, reason: str, *tables: str) -> None:
        """Have it put right, and only then these tables compared: the loop has nothing to do while rows are wrong."""
        self._touched.append(touched)
        self._submit(partial(self._run_and_poke, reason, tables))

    def _run_and_poke(self, reason: str, tables: tuple[str, ...]) -> None:
        try:
            self.run()
        finally:
            self._poke(reason, *tables)

    @uncollected()
    def run(self) -> frozenset[str]:
        """The tables in which rows were put right. Nothing while there is nothing to look at, or nobody may write."""
        touched = self._taken()
        if not touched or self._host.hold.suspended:
            return frozenset()
        began = time.monotonic_ns()
        try:
            plan = self._host.drift_at(touched)
            if plan is None:
                return frozenset()
            self._host.repair(plan)
            self._tell(plan, began, time.monotonic_ns())
            return frozenset(delta.table for delta in plan.deltas)
        except PlumbError as error:
            log.debug("not at once touched=%s error=%s", touched, error)
        except Exception:
            log.exception("not at once touched=%s", touched)
        return frozenset()

    def told(self) -> list[DriftReport]:
        """What was put right since this was asked last."""
        told, self._told = self._told, []
        return told

    def _taken(self) -> set[Touched]:
        taken: set[Touched] = set()
        with suppress(IndexError):
            while True:
                taken.add(self._touched.popleft())
        return taken

    def _tell(self, plan: Plan, began_ns: int, done_ns: int) -> None:
        fields = self._host.listing().fields()
        for report in reports(plan, None, self._suspects, fields, began_ns, done_ns, plan.base):
            log.warning("drift %s", report)
            self._told.append(report)
