"""Tells the cluster's store what became of commits on this node. The newest report counts; it is tried until written.

The store may be slow or away: a thread of its own waits for it, no pass does.
"""

from __future__ import annotations

import logging
import threading

from reconciler.errors import StoreError
from reconciler.store.protocol import Store
from reconciler.store.reports import Report, tell

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0


class Reporter:
    """Owns a thread until `close`."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._newest: tuple[Store, str, Report] | None = None
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
        pause_s = 0.0
        while True:
            with self._news:
                self._news.wait_for(lambda: self._stopping, pause_s)
                self._news.wait_for(lambda: self._stopping or self._newest is not None)
                newest = self._newest
                if newest is None or (self._stopping and pause_s):
                    return
            written = self._write(*newest)
            pause_s = 0.0 if written else min(LONGEST_PAUSE_S, 2 * pause_s + 1)
            with self._news:
                if written and self._newest is newest:
                    self._newest = None

    def _write(self, store: Store, cluster: str, report: Report) -> bool:
        try:
            tell(store, cluster, report)
        except StoreError as error:
            log.info("result not told commit=%s error=%s", report.commit[:12], error)
            return False
        return True
