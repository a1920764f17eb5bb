"""Following a prefix of a store, through its loss."""

from __future__ import annotations

from contextlib import closing

from reconciler.errors import ChangesMissed, StoreError
from reconciler.store.changes import changes
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.protocol import Snapshot


def test_it_begins_with_what_is_there_and_goes_on_with_what_changes(store: EmbeddedStore) -> None:
    store.put("/a/1", b"one")
    store.put("/b/1", b"other")
    with closing(changes(store, "/a/", poll_s=5.0)) as heard:
        assert next(heard) == {"/a/1": b"one"}
        store.put("/a/2", b"two")
        assert next(heard) == {"/a/2": b"two"}
        store.delete("/a/1")
        assert next(heard) == {"/a/1": None}


def test_it_says_nothing_where_nothing_changes(store: EmbeddedStore) -> None:
    with closing(changes(store, "/a/", poll_s=0.0)) as heard:
        assert [next(heard), next(heard)] == [{}, {}]


class _Away(EmbeddedStore):
    """Its next range fails as often as it is told; the real one cannot fail on demand."""

    failures: list[StoreError]

    def range(self, prefix: str) -> Snapshot:
        if self.failures:
            raise self.failures.pop()
        return super().range(prefix)


def test_it_goes_on_once_the_store_is_back(store: EmbeddedStore) -> None:
    away = _Away(store._path)
    away.failures = [StoreError("away"), ChangesMissed("compacted"), StoreError("away")]
    away.put("/a/1", b"one")
    with closing(away), closing(changes(away, "/a/", poll_s=0.0, retry_s=0.0)) as heard:
        assert [next(heard), next(heard), next(heard)] == [{}, {}, {"/a/1": b"one"}]
