"""What happens to etcd servers, with real ones: killed, leaderless, frozen, compacted. Watches miss nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest

from reconciler.errors import ChangesMissed, StoreError
from reconciler.store import etcd_servers
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_servers import Servers
from reconciler.store.protocol import Event, Store, Watch
from reconciler.store.session import Session

from .etcd_server import EtcdServer, cluster_of, running

DEADLINE_S = 30.0
NOTICED_S = 10.0  # how late a hung server may be noticed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls give up early: for tests of what comes after that."""
    monkeypatch.setattr(etcd_servers, "TIMEOUT_S", 1.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EtcdServer]]:
    with cluster_of(3, tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@contextmanager
def store_of(*servers: EtcdServer) -> Iterator[EtcdStore]:
    with closing(EtcdStore(Servers([server.endpoint for server in servers]))) as store:
        yield store


@contextmanager
def watching(store: Store, prefix: str) -> Iterator[Watch]:
    watch = store.watch(prefix, store.range(prefix).revision)
    try:
        yield watch
    finally:
        watch.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def numbers(watch: Watch, count: int) -> list[int]:
    """The values of the next `count` events."""
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(events) < count and time.monotonic() < deadline:
        events += watch.poll(1.0)
    return [int(event.value or b"-1") for event in events]


def failure_of(call: Callable[[], object]) -> BaseException | None:
    """How it ends, in time or not at all."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).exception(NOTICED_S)


def put_stubbornly(store: Store, key: str, value: bytes) -> None:
    """As a caller does that must get it written."""

    def written() -> bool:
        try:
            store.put(key, value)
        except StoreError:
            return False
        return True

    until(written)


def test_a_watch_goes_on_after_its_server_was_killed_and_started_again(server: EtcdServer) -> None:
    with store_of(server) as store, watching(store, "/w/") as watch:
        store.put("/w/a", b"0")
        assert numbers(watch, 1) == [0]
        server.kill()
        assert watch.poll(0) == []
        server.again()
        server.wait()
        with store_of(server) as other:
            for number in range(1, 50):
                other.put("/w/a", str(number).encode())
        assert numbers(watch, 49) == list(range(1, 50))
        assert watch.poll(0) == []


def test_a_read_waits_for_a_server_that_starts_again(server: EtcdServer) -> None:
    with store_of(server) as store:
        store.put("/a", b"1")
        server.kill()
        server.again()
        item = store.get("/a")
        assert item
        assert item.value == b"1"


def test_a_server_that_is_away_is_told_in_words_and_used_again_when_it_is_back(server: EtcdServer, hasty: None) -> None:
    with store_of(server) as store:
        server.kill()
        with pytest.raises(StoreError, match=f"{server.endpoint}: Connection refused") as caught:
            store.get("/a")
        assert "spec.store.endpoints" in caught.value.remedy
        server.again()
        server.wait()
        put_stubbornly(store, "/a", b"1")


def test_changes_that_were_compacted_while_the_server_was_away_are_told(server: EtcdServer) -> None:
    with store_of(server) as store, watching(store, "/w/") as watch:
        store.put("/w/a", b"0")
        assert numbers(watch, 1) == [0]
        with server.elsewhere(), store_of(server) as other, server.client() as client:
            other.put("/w/a", b"1")
            client.compact(other.put("/w/a", b"2"))
        with pytest.raises(ChangesMissed):
            numbers(watch, 3)


def test_an_etcd_that_was_replaced_by_an_older_one_is_told(server: EtcdServer, tmp_path: Path) -> None:
    with store_of(server) as store:
        for _ in range(10):
            store.put("/w/a", b"0")
        with watching(store, "/w/") as watch:
            store.put("/w/a", b"0")
            assert numbers(watch, 1) == [0]
            server.kill()
            (tmp_path / "data").rename(tmp_path / "old")
            server.again()
            server.wait()
            with pytest.raises(ChangesMissed, match="went back from revision"):
                numbers(watch, 2)


def test_a_hung_server_ends_calls_with_words_and_its_watch_catches_up(server: EtcdServer) -> None:
    with store_of(server) as store, watching(store, "/w/") as watch:
        store.put("/w/a", b"0")
        assert numbers(watch, 1) == [0]
        server.freeze()
        assert f"{server.endpoint}: it does not answer" in str(failure_of(lambda: store.get("/a")))
        server.thaw()
        put_stubbornly(store, "/w/a", b"1")
        assert numbers(watch, 1) == [1]


def test_a_hung_server_among_three_is_left_by_calls_and_by_its_watch(cluster: list[EtcdServer]) -> None:
    """The stream itself notices: the watch has nothing to ask that would run into a timeout."""
    hung = next(server for server in cluster if not server.leads())
    others = [server for server in cluster if server is not hung]
    with store_of(hung, *others) as store, store_of(*others) as writer, watching(store, "/hung/") as watch:
        writer.put("/hung/a", b"0")
        assert numbers(watch, 1) == [0]
        hung.freeze()
        try:
            writer.put("/hung/a", b"1")
            assert [event.value for event in watch.poll(NOTICED_S)] == [b"1"]
            assert store.get("/hung/a")
        finally:
            hung.thaw()
            hung.wait()


def test_nothing_is_missed_or_comes_twice_while_the_leader_is_killed(cluster: list[EtcdServer]) -> None:
    leader = next(server for server in cluster if server.leads())
    others = [server for server in cluster if server is not leader]
    stop = Flag()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set():
            put_stubbornly(writer, f"/count/{len(written):06}", str(len(written)).encode())
            written.append(len(written))

    with ExitStack() as stack:
        store, writer = (stack.enter_context(store_of(leader, *others)) for _ in range(2))
        watch = stack.enter_context(watching(store, "/count/"))
        thread = Thread(target=write)
        thread.start()
        try:
            until(lambda: len(written) > 50)
            leader.kill()
            before = len(written)
            until(lambda: len(written) > before + 50)
        finally:
            stop.set()
            thread.join(DEADLINE_S)
            leader.again()
            leader.wait()
        seen = numbers(watch, len(written))
        assert list(dict.fromkeys(seen)) == written
        assert seen == sorted(seen)


def test_a_conditional_write_whose_answer_got_lost_is_not_called_refused(server: EtcdServer) -> None:
    """It may have been made: False would be a lie, and True as well."""
    with store_of(server) as store:
        store.get("/a")
        server.freeze()
        try:
            with pytest.raises(StoreError, match="may have made or not"):
                store.compare_and_swap("/a", b"1", 0)
        finally:
            server.thaw()


def test_a_session_comes_back_after_its_server_was_away_for_longer_than_its_lease(
    server: EtcdServer, hasty: None
) -> None:
    with store_of(server) as store, closing(Session(store, ttl_s=2)) as session:
        session.put("/nodes/alpha", b"1")
        first = session.lease
        server.kill()
        until(lambda: not session.state.connected)
        assert "Connection refused" in session.state.reason
        assert not session.put("/nodes/beta", b"2")
        server.again()
        server.wait()
        with store_of(server) as other:
            other.revoke(first or 0)
        until(lambda: session.state.connected)
        until(lambda: session.lease != first)
        assert [item.key for item in store.range("/nodes/").items] == ["/nodes/alpha", "/nodes/beta"]


def test_a_session_may_begin_before_its_server(tmp_path: Path, hasty: None) -> None:
    server = EtcdServer(tmp_path)
    with store_of(server) as store, closing(Session(store, ttl_s=2)) as session:
        assert not session.put("/a", b"1")
        assert "Connection refused" in session.state.reason
        server.start()
        try:
            until(lambda: session.state.connected)
            assert store.get("/a")
        finally:
            session.close()
            server.kill()
