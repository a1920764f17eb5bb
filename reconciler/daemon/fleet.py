"""This daemon among those of its cluster: it tells the others of pushes and of its own results, and hears of theirs.

All of it goes through the store that the applied commit names; a host that never applied one is alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from datetime import UTC, datetime

from reconciler import __version__
from reconciler.daemon.answers import Told, answers
from reconciler.daemon.follower import Follower
from reconciler.daemon.health import Health
from reconciler.daemon.notes import NoteWriter
from reconciler.daemon.outcome import Outcome
from reconciler.daemon.reporter import Reporter
from reconciler.daemon.wakeup import Wakeup
from reconciler.errors import StoreError
from reconciler.host import Host
from reconciler.store.protocol import Store
from reconciler.store.reports import Pushed, Report, announce, reports

ANSWERED_WITHIN_S = 10.0  # after this host's own answer


class Fleet:
    """Owned by the daemon's event loop; `close` blocks until its threads have ended."""

    def __init__(self, host: Host, follower: Follower, health: Health) -> None:
        self._host, self._follower, self._health = host, follower, health
        self._node = host.config.node
        self._reporter = Reporter()
        self._wakeup: Wakeup | None = None
        self._notes: NoteWriter | None = None
        self._heard: tuple[Store, str] | None = None
        self._looked_at: Outcome | None = None
        self._time = ""
        self._state = ""

    def close(self) -> None:
        self._reporter.close()
        for listener in (self._wakeup, self._notes):
            if listener is not None:
                listener.close()

    def is_news(self, outcome: Outcome | None, state: str) -> bool:
        return outcome is not None or state != self._state

    def passed(self, outcome: Outcome | None, state: str) -> None:
        """After a pass, in the writer thread."""
        self._state = state
        if outcome is not None and not _says_less(outcome, self._looked_at):
            self._looked_at, self._time = outcome, _now()
        shared = self._host.shared
        if shared is not None and self._looked_at is not None:
            self._reporter.tell(*shared, self._report(self._looked_at))

    def listen(self) -> None:
        """To the store as it is now: to be woken where commits come from a remote, elsewhere to write notes of them."""
        shared, config = self._host.shared, self._host.config
        if shared is None or shared == self._heard:
            return
        if self._wakeup is not None:
            self._wakeup.close()
        if self._notes is not None:
            self._notes.close()
        self._heard = shared
        if config.remote:
            self._wakeup = Wakeup(*shared, self._node, self._follower.wake)
        else:
            self._notes = NoteWriter(*shared, self._node, config.repository)

    async def announce(self, commit: str, ref: str) -> None:
        """Raises StoreError."""
        if shared := self._host.shared:
            await asyncio.to_thread(announce, *shared, Pushed(commit, ref, _now(), self._node))
            if self._notes is not None:
                self._notes.begin()

    async def lines(self, commit: str, nodes: Collection[str]) -> AsyncGenerator[str]:
        """What became of the commit on these nodes, a line each as they come; nothing if none of them ever reported."""
        shared = self._host.shared
        if shared is None:
            return
        try:
            known, _ = await asyncio.to_thread(reports, *shared)
        except StoreError as error:
            yield f"plumb: nothing is known of other hosts: {error}"
            return
        waiting = {node for node in nodes if node in known}
        if not waiting:
            return
        told, silent = Told(len(nodes)), set(nodes)
        async for report in answers(*shared, commit, waiting, ANSWERED_WITHIN_S):
            silent.discard(report.node)
            if line := told.line(report):
                yield line
        for line in told.silent(silent, known):
            yield line

    def _report(self, outcome: Outcome) -> Report:
        status = self._host.status()
        return Report(
            node=self._node,
            commit=outcome.commit,
            result=outcome.result,
            time=self._time,
            running=status["commit"],
            since=status["since"],
            state=self._state,
            version=__version__,
            error=outcome.error,
            duration_ms=round(outcome.duration_ms, 3),
            counts=outcome.counts,
            unreachable=[f"{one.node} ({one.path} path, since {one.since})" for one in self._health.unreachable()],
            remedy=outcome.remedy,
        )


def _says_less(outcome: Outcome, before: Outcome | None) -> bool:
    """That a commit needs no further change does not hide what it changed a moment ago."""
    if before is None or before.commit != outcome.commit:
        return False
    return outcome.result == "unchanged" and before.result == "applied"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
