"""Wakes the daemon for what other hosts say: for the first word at once, then for many of them together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.daemon.trigger import Trigger

EVERY_S = 0.05  # a hundred words a second cost twenty passes


class News:
    """Belongs to one event loop; `arrived` and `store_is_back` are for other threads."""

    def __init__(self, trigger: Trigger, every_s: float = EVERY_S) -> None:
        self._trigger = trigger
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._next_s = 0.0
        self._waiting = False

    def arrived(self) -> None:
        self._call(self._arrived)

    def store_is_back(self) -> None:
        self._call(self._store_is_back)

    def _call(self, what: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _arrived(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._loop.call_later(max(0.0, self._next_s - self._loop.time()), self._poke)

    def _poke(self) -> None:
        self._waiting = False
        self._next_s = self._loop.time() + self._every_s
        self._trigger.poke("other hosts", news=True)

    def _store_is_back(self) -> None:
        self._trigger.poke("the store is there again", news=True)
        self._trigger.poke("the store is there again", commit=True, again=True)
