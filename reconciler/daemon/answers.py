"""What the other hosts make of a commit, as their reports come in from the cluster's store; and in words for a push."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import closing

from reconciler.daemon.outcome import Outcome
from reconciler.store.changes import changes
from reconciler.store.protocol import Store
from reconciler.store.reports import Report, as_report, reports_prefix

LINES = 32  # of a push's output for hosts on which all is well; with more of them they are counted
GOOD = ("applied", "unchanged")
_POLL_S = 0.1


async def answers(
    store: Store, cluster: str, commit: str, nodes: Iterable[str], within_s: float
) -> AsyncGenerator[Report]:
    """Each node's report about the commit, as it comes; ends with the last one, or when the time is over."""
    heard: asyncio.Queue[Report | None] = asyncio.Queue()
    loop, stop, waiting = asyncio.get_running_loop(), threading.Event(), set(nodes)

    def say(one: Report | None) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, one)

    def listen() -> None:
        try:
            _listen(store, cluster, commit, waiting, say, lambda: stop.is_set() or time.monotonic() > deadline)
        finally:
            say(None)

    deadline = time.monotonic() + within_s
    listening = asyncio.create_task(asyncio.to_thread(listen))
    try:
        while (one := await heard.get()) is not None:
            yield one
    finally:
        stop.set()
        await listening


def _listen(
    store: Store,
    cluster: str,
    commit: str,
    waiting: set[str],
    say: Callable[[Report], None],
    is_over: Callable[[], bool],
) -> None:
    with closing(changes(store, reports_prefix(cluster), _POLL_S, _POLL_S)) as heard:
        for values in heard:
            for report in filter(None, map(as_report, values.values())):
                if report.node in waiting and report.commit == commit:
                    waiting.discard(report.node)
                    say(report)
            if not waiting or is_over():
                return


class Told:
    """Lines about many hosts: each one's while they are few, otherwise only where something is wrong, and a sum."""

    def __init__(self, hosts: int) -> None:
        self._few = hosts <= LINES
        self._good = 0

    def line(self, report: Report) -> str:
        """'' for one that is only counted."""
        self._good += report.result in GOOD
        return str(_outcome(report)) if self._few or report.result not in GOOD else ""

    def silent(self, nodes: Iterable[str], known: Mapping[str, Report]) -> Iterator[str]:
        """Those that have not answered, and the sum."""
        for node in sorted(nodes):
            yield f"{node}: no answer yet ({_last_word(known.get(node))})"
        if not self._few:
            yield f"plumb: applied on {self._good} other hosts"


def _outcome(report: Report) -> Outcome:
    return Outcome(
        report.node,
        report.commit,
        report.result,
        report.duration_ms,
        dict(report.counts),
        error=report.error,
        remedy=report.remedy,
    )


def _last_word(report: Report | None) -> str:
    if report is None:
        return "it never reported"
    return f"its last word is of {report.time}: {report.result} {report.commit[:12]}"
