"""etcd: the contract, and what is its own: pages, limits, layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from reconciler.errors import ChangesMissed, StoreError
from reconciler.store import etcd
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_servers import Servers
from reconciler.store.layout import LayoutGate, require_layout
from reconciler.store.protocol import root

from .contract import StoreContract
from .etcd_server import EtcdServer, running

Again = Callable[[], EtcdStore]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with running(tmp_path_factory.mktemp("etcd")) as started:
        yield started


@pytest.fixture
def again(server: EtcdServer) -> Iterator[Again]:
    with server.client() as client:
        client.delete_prefix("/")
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(EtcdStore(Servers([server.endpoint]))))


@pytest.fixture
def store(again: Again) -> EtcdStore:
    return again()


class TestEtcd(StoreContract):
    """The contract, over a real server."""


def test_a_range_of_many_pages_is_whole_and_in_order(store: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PAGE", 7)
    for start in range(0, 300, 100):
        store.transact({}, {f"/p/{number:03}": b"1" for number in range(start, start + 100)})
    found = store.range("/p/")
    assert [item.key for item in found.items] == [f"/p/{number:03}" for number in range(300)]


def test_as_many_writes_as_it_says_fit_into_a_transaction(store: EtcdStore) -> None:
    writes: dict[str, bytes | None] = {f"/{number}": b"1" for number in range(store.max_writes)}
    assert store.transact(dict.fromkeys(writes, 0), writes)
    with pytest.raises(StoreError, match="129 writes at once, 128 are allowed"):
        store.transact({}, {**writes, "/more": b"1"})


def test_events_of_one_transaction_come_together(store: EtcdStore) -> None:
    watch = store.watch("/w/", store.range("/w/").revision)
    store.transact({}, {f"/w/{number}": b"1" for number in range(100)})
    assert len(watch.poll(20)) == 100
    watch.close()


def test_a_watch_from_a_forgotten_revision_says_so(server: EtcdServer, store: EtcdStore) -> None:
    first = store.put("/w/a", b"1")
    last = store.put("/w/a", b"2")
    with server.client() as client:
        client.compact(last)
    watch = store.watch("/w/", first - 1)
    with pytest.raises(ChangesMissed, match=f"changes up to {last} are forgotten"):
        watch.poll(20)
    watch.close()


def test_a_closed_store_says_so(again: Again) -> None:
    store = again()
    watch = store.watch("/", 0)
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.get("/a")
    with pytest.raises(StoreError, match="is closed"):
        watch.poll(20)
    watch.close()


def test_the_first_host_writes_the_layout_and_others_accept_it(store: EtcdStore, again: Again) -> None:
    gated = EtcdStore(store._servers, LayoutGate(store, "demo"))
    gated.put("/a", b"1")
    written = store.get(f"{root('demo')}layout")
    require_layout(again(), "demo")
    assert written
    assert written == store.get(f"{root('demo')}layout")


def test_looking_at_a_store_without_a_layout_writes_none(store: EtcdStore) -> None:
    gated = EtcdStore(store._servers, LayoutGate(store, "demo"))
    assert (gated.get("/a"), gated.range("/").items) == (None, ())
    assert store.get(f"{root('demo')}layout") is None


def test_a_later_layout_is_refused_before_anything_is_written(store: EtcdStore) -> None:
    store.put(f"{root('demo')}layout", b"2")
    gated = EtcdStore(store._servers, LayoutGate(store, "demo"))
    with pytest.raises(StoreError, match="cluster demo has layout 2, this version knows 1") as caught:
        gated.put("/a", b"1")
    assert "install the version" in caught.value.remedy
    assert store.get("/a") is None
