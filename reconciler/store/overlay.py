"""A store that reads another one and keeps its writes to itself: for finding out what an allocation would give.

Revisions of what was written here are above all of the other store's; nothing here outlives the object.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.store.protocol import ABSENT, Item, Snapshot, Store, Watch

_FIRST_REVISION = 1 << 62


class Overlay:
    """Implements `Store`. Leases cost nothing here and never end; a watch shows the other store's changes."""

    def __init__(self, beneath: Store) -> None:
        self.max_writes = beneath.max_writes
        self._beneath = beneath
        self._written: dict[str, Item | None] = {}
        self._revision = _FIRST_REVISION

    def get(self, key: str) -> Item | None:
        return self._written[key] if key in self._written else self._beneath.get(key)

    def range(self, prefix: str) -> Snapshot:
        items = {item.key: item for item in self._beneath.range(prefix).items}
        for key, item in self._written.items():
            if not key.startswith(prefix):
                continue
            if item is None:
                items.pop(key, None)
            else:
                items[key] = item
        return Snapshot(tuple(items[key] for key in sorted(items)), self._revision)

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        self.transact({}, {key: value})
        return self._revision

    def delete(self, key: str) -> bool:
        there = self.get(key) is not None
        self.transact({}, {key: None})
        return there

    def compare_and_swap(self, key: str, value: bytes | None, revision: int, lease: int | None = None) -> bool:
        return self.transact({key: revision}, {key: value})

    def transact(
        self, expected: Mapping[str, int], writes: Mapping[str, bytes | None], lease: int | None = None
    ) -> bool:
        for key, revision in expected.items():
            item = self.get(key)
            if (item.revision if item else ABSENT) != revision:
                return False
        self._revision += 1
        for key, value in writes.items():
            self._written[key] = None if value is None else Item(key, value, self._revision)
        return True

    def watch(self, prefix: str, revision: int) -> Watch:
        return self._beneath.watch(prefix, revision)

    def lease(self, ttl_s: float) -> int:
        return 0

    def keep_alive(self, lease: int) -> None:
        return None

    def revoke(self, lease: int) -> None:
        return None

    def close(self) -> None:
        """The other store stays open: it is its owner's."""
