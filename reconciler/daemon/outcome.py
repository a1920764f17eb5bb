"""What became of each commit on this host, and waiting for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import PlumbError

KEPT = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """`result`: applied, unchanged, refused (it can never be applied here), failed (it may be, later), held, suspended.

    `counts`: table -> `+1 ~0 -0`. `remedy`: what to do about the error. `notes`: what was left for later, and why.
    """

    node: str
    commit: str
    result: str
    duration_ms: float
    counts: dict[str, str] = field(default_factory=dict)
    error: str = ""
    notes: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def line(self) -> str:
        """Without the notes and the remedy, for a log."""
        head = f"{self.node}: {self.result} {self.commit[:12]} in {self.duration_ms:.0f} ms"
        if self.error:
            return f"{head}: {self.error}"
        changed = ", ".join(f"{table} {counts}" for table, counts in self.counts.items())
        return f"{head} ({changed or 'no row changed'})"

    def __str__(self) -> str:
        remedy = [f"next: {self.remedy}"] if self.remedy else []
        return "\n  ".join((self.line, *remedy, *self.notes))


class Outcomes:
    """The newest outcome of each of the last commits. Belongs to one event loop.

    One is past once another commit was looked at: when the branch comes back to its commit, it says nothing any more.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Outcome] = OrderedDict()
        self._latest = ""
        self._news = asyncio.Condition()

    def get(self, commit: str) -> Outcome | None:
        return self._known.get(commit)

    def is_past(self, commit: str) -> bool:
        return commit in self._known and commit != self._latest

    def forget(self, commit: str) -> None:
        self._known.pop(commit, None)

    def forget_kept_back(self) -> None:
        """Those that somebody's word kept from being applied."""
        for outcome in list(self._known.values()):
            if outcome.result in ("held", "suspended"):
                self.forget(outcome.commit)

    async def publish(self, outcome: Outcome) -> None:
        """That the latest commit needs no further change does not hide what it changed."""
        async with self._news:
            known = self.get(outcome.commit) if outcome.commit == self._latest else None
            if outcome.result != "unchanged" or known is None or known.result != "applied":
                self._known[outcome.commit] = outcome
            self._latest = outcome.commit
            self._known.move_to_end(outcome.commit)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            self._news.notify_all()

    async def wait(self, commit: str, timeout_s: float) -> Outcome:
        """The commit's outcome as soon as there is one. Raises PlumbError when the time is over."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: commit in self._known)
        except TimeoutError:
            raise PlumbError(
                f"nothing is known of {commit[:12]} after {timeout_s:g} s", remedy="see: plumb status"
            ) from None
        return self._known[commit]


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "node": outcome.node,
        "commit": outcome.commit,
        "result": outcome.result,
        "duration_ms": round(outcome.duration_ms, 3),
        "counts": outcome.counts,
        "error": outcome.error,
        "remedy": outcome.remedy,
        "notes": list(outcome.notes),
    }
