"""What every Store must do. A test class inherits `StoreContract` and gives it its `store` and `again`.

`store` is empty; `again()` is another client of the same store, as another process would have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread

import pytest

from reconciler.errors import StoreError
from reconciler.store.protocol import ABSENT, Event, Store, Watch

DEADLINE_S = 20.0

Again = Callable[[], Store]


def polled(watch: Watch, count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(events) < count and time.monotonic() < deadline:
        events += watch.poll(1.0)
    return events


class StoreContract:
    def test_what_is_put_is_read_with_the_revision_of_its_write(self, store: Store) -> None:
        first = store.put("/a", b"1")
        second = store.put("/a", b"\x00\xff")
        item = store.get("/a")
        assert item
        assert (item.key, item.value, item.revision) == ("/a", b"\x00\xff", second)
        assert second > first > ABSENT

    def test_an_absent_key_is_none(self, store: Store) -> None:
        assert store.get("/a") is None

    def test_another_client_sees_what_was_written(self, store: Store, again: Again) -> None:
        store.put("/a", b"1")
        item = again().get("/a")
        assert item
        assert item.value == b"1"

    def test_delete_says_whether_the_key_was_there(self, store: Store) -> None:
        store.put("/a", b"1")
        assert store.delete("/a")
        assert not store.delete("/a")
        assert store.get("/a") is None

    def test_a_range_is_sorted_and_holds_only_its_prefix(self, store: Store) -> None:
        for key in ("/b/2", "/a/1", "/b/1", "/c", "/b0", "/b/\N{GREEK SMALL LETTER ALPHA}"):
            store.put(key, key.encode())
        found = store.range("/b/")
        assert [item.key for item in found.items] == ["/b/1", "/b/2", "/b/\N{GREEK SMALL LETTER ALPHA}"]
        assert all(item.value == item.key.encode() for item in found.items)

    def test_a_swap_needs_the_revision_that_was_read(self, store: Store) -> None:
        revision = store.put("/a", b"1")
        assert store.compare_and_swap("/a", b"2", revision)
        assert not store.compare_and_swap("/a", b"3", revision)
        item = store.get("/a")
        assert item
        assert item.value == b"2"

    def test_a_swap_can_create_and_delete(self, store: Store) -> None:
        assert store.compare_and_swap("/a", b"1", ABSENT)
        assert not store.compare_and_swap("/a", b"2", ABSENT)
        item = store.get("/a")
        assert item
        assert store.compare_and_swap("/a", None, item.revision)
        assert store.get("/a") is None

    def test_a_transaction_writes_everything_or_nothing(self, store: Store) -> None:
        revision = store.put("/a", b"1")
        assert not store.transact({"/a": revision, "/b": revision}, {"/a": b"2", "/c": b"2"})
        assert not store.range("/c").items
        assert store.transact({"/a": revision, "/b": ABSENT}, {"/a": None, "/c": b"2"})
        assert [item.key for item in store.range("/").items] == ["/c"]

    def test_of_many_swaps_at_once_one_wins(self, store: Store, again: Again) -> None:
        wins: list[int] = []
        clients = [again() for _ in range(4)]

        def swap(number: int) -> None:
            if clients[number].compare_and_swap("/a", str(number).encode(), ABSENT):
                wins.append(number)

        threads = [Thread(target=swap, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        item = store.get("/a")
        assert item
        assert [str(number).encode() for number in wins] == [item.value]

    def test_a_watch_reports_writes_of_this_and_of_other_clients_in_order(self, store: Store, again: Again) -> None:
        store.put("/w/0", b"before")
        watch = store.watch("/w/", store.range("/w/").revision)
        store.put("/w/1", b"1")
        store.put("/elsewhere", b"1")
        again().put("/w/2", b"2")
        store.delete("/w/1")
        events = polled(watch, 3)
        assert [(event.key, event.value) for event in events] == [("/w/1", b"1"), ("/w/2", b"2"), ("/w/1", None)]
        assert [event.revision for event in events] == sorted(event.revision for event in events)
        assert watch.poll(0) == []
        watch.close()

    def test_a_watch_wakes_up_for_a_write_while_it_waits(self, store: Store, again: Again) -> None:
        watch = store.watch("/w/", store.range("/w/").revision)
        other = again()
        thread = Thread(target=lambda: other.put("/w/1", b"1"))
        thread.start()
        assert [event.key for event in polled(watch, 1)] == ["/w/1"]
        thread.join(DEADLINE_S)
        watch.close()

    def test_a_key_goes_with_its_lease(self, store: Store) -> None:
        watch = store.watch("/l/", store.range("/l/").revision)
        store.put("/l/a", b"1", store.lease(1.0))
        store.put("/l/b", b"1")
        assert [(event.key, event.value) for event in polled(watch, 3)] == [
            ("/l/a", b"1"),
            ("/l/b", b"1"),
            ("/l/a", None),
        ]
        assert [item.key for item in store.range("/l/").items] == ["/l/b"]
        watch.close()

    def test_a_revoked_lease_takes_its_keys_and_cannot_be_kept_alive(self, store: Store) -> None:
        lease = store.lease(60.0)
        store.compare_and_swap("/l/a", b"1", ABSENT, lease)
        store.keep_alive(lease)
        store.revoke(lease)
        store.revoke(lease)
        assert store.get("/l/a") is None
        with pytest.raises(StoreError, match="has ended"):
            store.keep_alive(lease)
        with pytest.raises(StoreError, match="has ended"):
            store.put("/l/a", b"1", lease)
        assert store.get("/l/a") is None

    def test_a_key_written_again_without_its_lease_stays(self, store: Store) -> None:
        lease = store.lease(60.0)
        store.put("/l/a", b"1", lease)
        store.put("/l/a", b"2")
        store.revoke(lease)
        item = store.get("/l/a")
        assert item
        assert item.value == b"2"
