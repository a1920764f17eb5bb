"""Which layout of keys and values a cluster's store has: written once, and read by every host before anything else.

A host must not touch what a later version has laid out in a way it does not know: it would take the difference for
rubbish, or hand out again what is taken.

    .../layout    the version
"""

from __future__ import annotations

import threading

from reconciler.errors import StoreError
from reconciler.store.protocol import ABSENT, Store, root

LAYOUT = 1


class LayoutGate:
    """Called before each use of a store: checks once, with success, and then lets everything pass.

    `store` is one without this gate. While the store cannot be reached, each call tries again. Only what writes gives
    a layout to a store that has none: looking at one leaves nothing there.
    """

    def __init__(self, store: Store, cluster: str) -> None:
        self._store = store
        self._cluster = cluster
        self._lock = threading.Lock()
        self._passed = False

    def __call__(self, *, writes: bool) -> None:
        if self._passed:
            return
        with self._lock:
            if not self._passed:
                self._passed = require_layout(self._store, self._cluster, writes=writes)


def require_layout(store: Store, cluster: str, *, writes: bool = True) -> bool:
    """Raises StoreError if the cluster's layout is another one; a store that has none gets ours if one `writes`.

    Returns whether it has one now.
    """
    key = f"{root(cluster)}layout"
    item = store.get(key)
    if item is None and not writes:
        return False
    if item is None:
        store.compare_and_swap(key, str(LAYOUT).encode(), ABSENT)
        item = store.get(key)
    found = item.value.decode(errors="replace") if item else "none"
    if found == str(LAYOUT):
        return True
    if found.isdecimal() and int(found) > LAYOUT:
        raise StoreError(
            f"the store of cluster {cluster} has layout {found}, this version knows {LAYOUT}",
            remedy="install the version that the other hosts have",
        )
    raise StoreError(
        f"{key} in the store is {found!r}, which is no layout", remedy=f"is this Plumbline's store? Else write {LAYOUT}"
    )
