"""The embedded store: the contract, and what only a file can suffer."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.store import embedded
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.protocol import ABSENT, root

from .contract import StoreContract

Again = Callable[[], EmbeddedStore]
PROCESSES, ROUNDS = 4, 25


class TestEmbedded(StoreContract):
    """The contract, over a file."""


def count_up(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        for _ in range(ROUNDS):
            while True:
                item = store.get("/counter")
                value, revision = (int(item.value), item.revision) if item else (0, ABSENT)
                if store.compare_and_swap("/counter", str(value + 1).encode(), revision):
                    break


def test_processes_that_open_a_new_file_and_swap_at_once_lose_nothing(path: Path, again: Again) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(path,)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    item = again().get("/counter")
    assert item
    assert int(item.value) == PROCESSES * ROUNDS


def open_and_write(path: Path, start: Barrier) -> None:
    for number in range(ROUNDS):
        start.wait(60)
        with closing(EmbeddedStore(path.with_name(f"{number}.db"))) as store:
            store.put("/a", b"1")


def test_processes_may_make_the_file_at_the_same_moment(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(PROCESSES)
    processes = [context.Process(target=open_and_write, args=(path, start)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        revision = store.put("/a", b"1")
    with closing(EmbeddedStore(path)) as store:
        assert store.range("/").revision == revision
        assert store.put("/a", b"2") > revision


def test_only_the_owner_may_read_the_file(path: Path, store: EmbeddedStore) -> None:
    store.put("/a", b"1")
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_lease_ends_by_the_clock_that_was_given(path: Path) -> None:
    now = [1000.0]
    with closing(EmbeddedStore(path, lambda: now[0])) as store:
        lease = store.lease(10.0)
        store.put("/a", b"1", lease)
        now[0] = 1009.0
        store.keep_alive(lease)
        now[0] = 1018.0
        assert store.get("/a")
        now[0] = 1019.0
        assert store.get("/a") is None


def test_a_watch_that_fell_too_far_behind_says_so(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "KEPT_EVENTS", 2)
    watch = store.watch("/", 0)
    for value in (b"1", b"2", b"3"):
        store.put("/a", value)
    with pytest.raises(StoreError, match="changes up to 1 are forgotten"):
        watch.poll(0)


def test_a_file_of_a_later_version_is_refused(path: Path, store: EmbeddedStore) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="has format 99, this version knows 1"):
        EmbeddedStore(path)


def test_a_damaged_file_is_one_clear_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match="not a database") as caught:
        EmbeddedStore(path)
    assert str(path) in str(caught.value)
    assert "move it away" in caught.value.remedy


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        EmbeddedStore(tmp_path / "file" / "inside" / "store.db")


def test_a_failed_write_leaves_the_store_usable(store: EmbeddedStore) -> None:
    with pytest.raises(StoreError, match="lease 77 has ended"):
        store.transact({}, {"/a": b"1"}, lease=77)
    assert store.get("/a") is None
    store.put("/a", b"2")


def test_the_name_of_a_cluster_cannot_reach_another_clusters_keys() -> None:
    assert root("a/b") == "/plumbline/v1/a%2Fb/"
    assert not root("a/b").startswith(root("a"))
