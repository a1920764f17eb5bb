"""Tells the cluster's store what became of commits on this node. The newest report counts; it is tried until written.

The store may be slow or away: a thread of its own waits for it, no pass does. Now and then the same is written again,
as a sign of life: with 1,000 nodes that makes 3 writes a second.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.errors import StoreError
from reconciler.store.protocol import Store
from reconciler.store.reports import Report, tell

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
REPEAT_S = 300.0


class Reporter:
    """Owns a thread until `close`."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._newest: tuple[Store, str, Report] | None = None
        self._written: tuple[Store, str, Report] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def tell(self, store: Store, cluster: str, report: Report) -> None:
        """Returns at once."""
        with self._news:
            self._newest = store, cluster, report
            self._news.notify()

    def close(self) -> None:
        """What could not be written by now is not written."""
        with self._news:
            self._stopping = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        pause_s = 0.0  # since the last try failed
        while (report := self._next(pause_s)) is not None:
            if self._write(*report):
                self._written, pause_s = report, 0.0
            else:
                self._written, pause_s = None, min(LONGEST_PAUSE_S, 2 * pause_s + 1)

    def _next(self, pause_s: float) -> tuple[Store, str, Report] | None:
        """What is to be written, once it is time; None at the end. What is new is still tried then."""
        with self._news:
            self._news.wait_for(lambda: self._stopping, pause_s)
            again_s = REPEAT_S * random.uniform(0.9, 1.1) if self._written is not None else None
            self._news.wait_for(lambda: self._stopping or self._newest is not self._written, again_s)
            if self._stopping and (pause_s or self._newest is self._written):
                return None
            return self._newest

    def _write(self, store: Store, cluster: str, report: Report) -> bool:
        try:
            tell(store, cluster, replace(report, seen=_now()))
        except StoreError as error:
            log.info("result not told commit=%s error=%s", report.commit[:12], error)
            return False
        return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
