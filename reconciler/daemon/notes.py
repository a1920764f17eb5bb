"""Keeps the notes of the policy repository's commits: which host runs what since when. `git log --notes=plumb`

Only the daemon whose hooks take the pushes does so. It listens to the reports of all hosts, waits a moment for more of
them, and writes what has changed; a report that says nothing new changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from pathlib import Path

from reconciler.daemon.note_lines import merged
from reconciler.errors import PlumbError, RepositoryError, StoreError
from reconciler.source.notes import Notes
from reconciler.store.changes import RETRY_S, changes
from reconciler.store.protocol import Store
from reconciler.store.reports import Report, as_report, last_pushed, reports_prefix

log = logging.getLogger(__name__)

QUIET_S = 0.3  # after the last report, before notes are written
PATIENCE_S = 2.0  # when reports keep coming
ATTEMPTS = 5


class NoteWriter:
    """Owns a thread until `close`. It does nothing until a push came through this host, now or in an earlier life."""

    def __init__(self, store: Store, cluster: str, node: str, repository: Path) -> None:
        self._store, self._cluster, self._node = store, cluster, node
        self._notes = Notes(repository)
        self._pushed = threading.Event()
        self._stop = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="notes", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A push came through this host."""
        self._pushed.set()

    def close(self) -> None:
        self._stop.set()
        self._pushed.set()
        self._thread.join()

    def _run(self) -> None:
        if not self._was_pushed_here():
            self._pushed.wait()
        told: dict[str, Report] = {}
        since = 0.0  # of the first report that is not written, 0 if there is none
        with closing(changes(self._store, reports_prefix(self._cluster), QUIET_S)) as heard:
            for values in heard:
                if self._stop.is_set():
                    return
                told |= {one.node: one for one in map(as_report, values.values()) if one is not None}
                since = since or (time.monotonic() if values else 0.0)
                if since and (not values or time.monotonic() - since > PATIENCE_S):
                    self._write(told)
                    told, since = {}, 0.0

    def _was_pushed_here(self) -> bool:
        while not self._pushed.is_set():
            try:
                pushed = last_pushed(self._store, self._cluster)
            except StoreError:
                self._stop.wait(RETRY_S)
            else:
                return pushed is not None and pushed.host == self._node
        return True

    def _write(self, told: dict[str, Report]) -> None:
        try:
            for _ in range(ATTEMPTS):
                if self._notes.write(merged(self._notes.read(), told.values())):
                    self._problem = ""
                    return
            raise RepositoryError("refs/notes/plumb moves all the time")
        except (PlumbError, OSError, ValueError) as error:
            if str(error) != self._problem:
                log.warning("notes not written error=%s", error)
            self._problem = str(error)
