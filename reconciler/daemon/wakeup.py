"""Hears from the cluster's store of pushes that another host's daemon has taken, long before the next poll."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from reconciler.store.changes import changes
from reconciler.store.protocol import Store
from reconciler.store.reports import as_pushed, pushed_key


class Wakeup:
    """Calls `woken(commit)` in its own thread, until `close`; at its start too, for what was pushed before."""

    def __init__(self, store: Store, cluster: str, node: str, woken: Callable[[str], None]) -> None:
        self._key, self._node, self._woken = pushed_key(cluster), node, woken
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(store,), name="wakeup", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, store: Store) -> None:
        with closing(changes(store, self._key)) as heard:
            for values in heard:
                if self._stop.is_set():
                    return
                pushed = as_pushed(values.get(self._key))
                if pushed is not None and pushed.host != self._node:
                    self._woken(pushed.commit)
