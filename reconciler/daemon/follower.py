"""Fetches the followed branch from its remote: now and then, and at once when somebody says that there is news.

What the branch says then is noticed as any other change of it. While no remote answers the host stays as it is.
"""

from __future__ import annotations

import logging
import random
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.config import Config
from reconciler.errors import RepositoryError
from reconciler.source.remote import create, fetch, without_credentials
from reconciler.source.watch import current

log = logging.getLogger(__name__)

FIRST_TIMEOUT_S = 600.0  # the whole history
TIMEOUT_S = 30.0
JITTER = 0.1  # of the interval, so that many hosts do not ask in step


class Follower:
    """Owns a thread from `start` to `close`. Its other methods are for any thread, and quick."""

    def __init__(self, config: Config) -> None:
        self._repository: Path = config.repository
        self._remote, self._ref = config.remote, config.ref
        self._interval_s = config.poll_interval_s
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._fetched: datetime | None = None
        self._failing: tuple[str, datetime] | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Without a remote nothing. Raises RepositoryError if the copy cannot be made."""
        if self._remote:
            create(self._repository, self._ref)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self, commit: str = "") -> None:
        """Fetch now, unless the branch is at this commit already."""
        if not commit or current(self._repository, self._ref) != commit:
            self._wanted.set()

    def status(self) -> dict[str, Any]:
        """As `remote` of the daemon's status; empty without a remote."""
        if not self._remote:
            return {}
        error, since = self._failing or ("", None)
        return {
            "url": without_credentials(self._remote),
            "last_fetched": _text(self._fetched),
            "error": error,
            "error_since": _text(since),
        }

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wanted.clear()
            self._fetch()
            self._wanted.wait(self._interval_s * (1 + random.uniform(-JITTER, JITTER)))

    def _fetch(self) -> None:
        timeout_s = TIMEOUT_S if current(self._repository, self._ref) else FIRST_TIMEOUT_S
        try:
            create(self._repository, self._ref)
            fetch(self._repository, self._remote, self._ref, timeout_s, self._stop)
        except RepositoryError as error:
            if not self._stop.is_set():
                self._failed(str(error))
        else:
            self._fetched = datetime.now(UTC)
            if self._failing is not None:
                log.info("fetched again remote=%s", without_credentials(self._remote))
            self._failing = None

    def _failed(self, reason: str) -> None:
        if self._failing is None or self._failing[0] != reason:
            log.warning("not fetched remote=%s reason=%s", without_credentials(self._remote), reason)
        self._failing = reason, self._failing[1] if self._failing else datetime.now(UTC)


def _text(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds") if time else ""
