"""A session: its keys live with it, come back after a loss, and go when it is closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.session import Session

DEADLINE_S = 20.0


class Clock:
    """Ends leases at once, rather than after their time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Counting(EmbeddedStore):
    """Tells how often a lease was kept alive."""

    kept = 0

    def keep_alive(self, lease: int) -> None:
        super().keep_alive(lease)
        self.kept += 1


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[Counting]:
    with closing(Counting(path, clock)) as opened:
        yield opened


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_its_keys_go_when_it_is_closed(store: EmbeddedStore) -> None:
    with closing(Session(store)) as session:
        assert session.put("/a", b"1")
        assert session.put("/b", b"1")
        assert session.delete("/b")
        assert [item.key for item in store.range("/").items] == ["/a"]
    assert not store.range("/").items


def test_it_keeps_its_lease_alive(store: Counting, clock: Clock) -> None:
    with closing(Session(store, ttl_s=0.3)) as session:
        session.put("/a", b"1")
        written = store.get("/a")
        for _ in range(4):
            clock.now_s += 0.2
            kept = store.kept
            until(lambda kept=kept: store.kept >= kept + 2)
        assert store.get("/a") == written


def test_everything_is_put_again_after_the_lease_was_lost(store: Counting, clock: Clock) -> None:
    with closing(Session(store, ttl_s=0.3)) as session:
        session.write({f"/{number}": b"1" for number in range(5)})
        before = store.range("/").revision
        clock.now_s += 60
        until(lambda: store.range("/").revision >= before + 2 and len(store.range("/").items) == 5)
        assert session.state.connected


def test_a_write_after_the_lease_was_lost_brings_the_others_back(store: Counting, clock: Clock) -> None:
    with closing(Session(store, ttl_s=60)) as session:
        session.put("/a", b"1")
        clock.now_s += 61
        assert session.put("/b", b"1")
        assert [item.key for item in store.range("/").items] == ["/a", "/b"]


def test_a_session_that_is_left_leaves_its_keys(store: EmbeddedStore) -> None:
    session = Session(store)
    session.put("/a", b"1")
    session.leave()
    assert store.get("/a") is not None


def test_what_somebody_took_away_is_put_again(store: EmbeddedStore) -> None:
    with closing(Session(store, ttl_s=60)) as session:
        session.put("/a", b"1")
        store.delete("/a")
        session.begin_again()
        until(lambda: store.get("/a"))


def test_nothing_is_written_before_the_claim_holds(store: EmbeddedStore) -> None:
    refused = True

    def claim(lease: int) -> None:
        if refused:
            raise StoreError("somebody else's")

    with closing(Session(store, claim=claim)) as session:
        assert not session.put("/a", b"1")
        assert session.state.reason == "somebody else's"
        assert store.get("/a") is None
        refused = False
        until(lambda: store.get("/a"))


def test_what_somebody_changed_is_as_it_was_told_again(store: EmbeddedStore) -> None:
    with closing(Session(store, ttl_s=60)) as session:
        session.put("/a", b"1")
        store.put("/b", b"of an older store")
        store.delete("/a")
        assert session.found({"/a": None, "/b": b"of an older store"})
        until(lambda: [item.key for item in store.range("/").items] == ["/a"])


def test_what_is_as_it_was_told_is_left_alone(store: EmbeddedStore) -> None:
    with closing(Session(store, ttl_s=60)) as session:
        session.put("/a", b"1")
        assert not session.found({"/a": b"1", "/b": None})
