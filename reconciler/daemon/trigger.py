"""Why the daemon should look at its host again: reasons pile up while a pass runs, and the next pass takes them all.

A trigger says only that something may have changed. What has changed, the pass finds out by comparing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Work:
    """What has piled up. `everything` covers `tables`; `commit` asks to look at the followed branch again, `again` to
    try its commit even if that failed a moment ago. `news`: others said something.
    """

    reasons: list[str] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)
    everything: bool = False
    commit: bool = False
    again: bool = False
    news: bool = False

    def __bool__(self) -> bool:
        return bool(self.reasons)


class Trigger:
    """Collects reasons and wakes whoever waits. Belongs to one event loop; `poke_threadsafe` is for other threads."""

    def __init__(self) -> None:
        self._work = Work()
        self._ready = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def poke(
        self,
        reason: str,
        *tables: str,
        commit: bool = False,
        again: bool = False,
        news: bool = False,
    ) -> None:
        """Without tables, everything is dirty (a commit brings its own plan, and so do news)."""
        if reason not in self._work.reasons:
            self._work.reasons.append(reason)
        self._work.tables.update(tables)
        self._work.commit |= commit
        self._work.again |= again
        self._work.news |= news
        self._work.everything |= not tables and not commit and not news
        self._ready.set()

    def poke_threadsafe(self, reason: str, *tables: str, commit: bool = False) -> None:
        self._loop.call_soon_threadsafe(lambda: self.poke(reason, *tables, commit=commit))

    async def take(self) -> Work:
        """Waits for the first reason and returns everything that has piled up by then."""
        await self._ready.wait()
        self._ready.clear()
        work, self._work = self._work, Work()
        return work
