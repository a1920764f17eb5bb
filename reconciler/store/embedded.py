"""The store of a single host: one SQLite file, safe with several threads and processes.

Readers see committed states only. A watch notices writes of its own process at once, those of others within `POLL_S`;
what it asks then is two lookups by index.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import ChangesMissed, LeaseEnded, StoreError
from reconciler.store.protocol import Event, Item, Snapshot
from reconciler.store.schema import open_database

KEPT_EVENTS = 20_000  # revisions that a watch may fall behind
POLL_S = 0.1  # how late a watch may notice another process
_LAST = "\U0010ffff"  # sorts after every key below a prefix


class EmbeddedStore:
    """A Store in the file `path`. Leases end by `clock`, seconds since the epoch, which all processes share."""

    max_writes = 2_000  # a transaction is in memory as a whole, several times over; 10,000 identities were 10 MB

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        with self._errors():
            self._database = open_database(self._path)

    def get(self, key: str) -> Item | None:
        with self._reading() as database:
            row = database.execute("SELECT key, value, revision FROM items WHERE key = ?", (key,)).fetchone()
        return Item(*row) if row else None

    def range(self, prefix: str) -> Snapshot:
        with self._reading() as database:
            rows = database.execute(
                "SELECT key, value, revision FROM items WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, prefix + _LAST),
            )
            return Snapshot(tuple(Item(*row) for row in rows), _revision(database))

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        with self._writing() as database:
            return self._write(database, {key: value}, lease)

    def delete(self, key: str) -> bool:
        with self._writing() as database:
            found = _revision_of(database, key) > 0
            if found:
                self._write(database, {key: None}, None)
            return found

    def compare_and_swap(self, key: str, value: bytes | None, revision: int, lease: int | None = None) -> bool:
        return self.transact({key: revision}, {key: value}, lease)

    def transact(
        self, expected: Mapping[str, int], writes: Mapping[str, bytes | None], lease: int | None = None
    ) -> bool:
        with self._writing() as database:
            if any(_revision_of(database, key) != revision for key, revision in expected.items()):
                return False
            if writes:
                self._write(database, writes, lease)
            return True

    def watch(self, prefix: str, revision: int) -> EmbeddedWatch:
        return EmbeddedWatch(self, prefix, revision)

    def lease(self, ttl_s: float) -> int:
        with self._writing() as database:
            cursor = database.execute(
                "INSERT INTO leases (ttl_s, ends_s) VALUES (?, ?)", (ttl_s, self._clock() + ttl_s)
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def keep_alive(self, lease: int) -> None:
        with self._writing() as database:
            _require_lease(database, lease)
            database.execute("UPDATE leases SET ends_s = ? + ttl_s WHERE id = ?", (self._clock(), lease))

    def revoke(self, lease: int) -> None:
        with self._writing() as database:
            self._end_leases(database, [lease])

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def events_after(self, revision: int, prefix: str) -> tuple[list[Event], int]:
        """Events below `prefix` after `revision`, and the revision they reach up to.

        Raises ChangesMissed if some after `revision` are no longer kept.
        """
        with self._reading() as database:
            (forgotten,) = database.execute("SELECT forgotten FROM state").fetchone()
            if revision < forgotten:
                raise ChangesMissed(f"changes up to {forgotten} are forgotten, the watch stands at {revision}")
            rows = database.execute(
                "SELECT key, value, revision FROM events WHERE revision > ? AND key >= ? AND key < ? "
                "ORDER BY revision, key",
                (revision, prefix, prefix + _LAST),
            ).fetchall()
            return [Event(*row) for row in rows], _revision(database)

    def wait(self, timeout_s: float) -> None:
        """Until this process writes, or `timeout_s`; other processes are not noticed here."""
        with self._changed:
            self._changed.wait(timeout_s)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the store {self._path}: {error}", remedy=_remedy(error)) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One committed state, without what leases have ended."""
        with self._lock, self._errors():
            ended = self._database.execute("SELECT 1 FROM leases WHERE ends_s <= ?", (self._clock(),)).fetchone()
            if ended:
                with self._transaction("BEGIN IMMEDIATE"):
                    self._expire()
            with self._transaction("BEGIN"):
                yield self._database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            with self._transaction("BEGIN IMMEDIATE"):
                self._expire()
                yield self._database
            self._changed.notify_all()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._database.execute(begin)
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # some errors of SQLite have ended it already
                self._database.execute("ROLLBACK")
            raise

    def _expire(self) -> None:
        ended = self._database.execute("SELECT id FROM leases WHERE ends_s <= ?", (self._clock(),)).fetchall()
        if ended:
            self._end_leases(self._database, [lease for (lease,) in ended])

    def _end_leases(self, database: sqlite3.Connection, leases: list[int]) -> None:
        for lease in leases:
            keys = database.execute("SELECT key FROM items WHERE lease = ?", (lease,)).fetchall()
            if keys:
                self._write(database, {key: None for (key,) in keys}, None)
            database.execute("DELETE FROM leases WHERE id = ?", (lease,))

    def _write(self, database: sqlite3.Connection, writes: Mapping[str, bytes | None], lease: int | None) -> int:
        if lease is not None:
            _require_lease(database, lease)
        revision = _revision(database) + 1
        database.execute("UPDATE state SET revision = ?", (revision,))
        database.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "value = excluded.value, revision = excluded.revision, lease = excluded.lease",
            ((key, value, revision, lease) for key, value in writes.items() if value is not None),
        )
        database.executemany(
            "DELETE FROM items WHERE key = ?", ((key,) for key, value in writes.items() if value is None)
        )
        database.executemany(
            "INSERT INTO events VALUES (?, ?, ?)", ((revision, key, value) for key, value in writes.items())
        )
        _forget(database, revision - KEPT_EVENTS)
        return revision


class EmbeddedWatch:
    """A Watch over an EmbeddedStore: it remembers how far it has read."""

    def __init__(self, store: EmbeddedStore, prefix: str, revision: int) -> None:
        self._store = store
        self._prefix = prefix
        self._revision = revision

    def poll(self, timeout_s: float) -> list[Event]:
        deadline = time.monotonic() + timeout_s
        while True:
            events, self._revision = self._store.events_after(self._revision, self._prefix)
            left = deadline - time.monotonic()
            if events or left <= 0:
                return events
            self._store.wait(min(left, POLL_S))

    def close(self) -> None:
        """Nothing is held."""


def _revision(database: sqlite3.Connection) -> int:
    (revision,) = database.execute("SELECT revision FROM state").fetchone()
    return int(revision)


def _revision_of(database: sqlite3.Connection, key: str) -> int:
    row = database.execute("SELECT revision FROM items WHERE key = ?", (key,)).fetchone()
    return int(row[0]) if row else 0


def _require_lease(database: sqlite3.Connection, lease: int) -> None:
    if not database.execute("SELECT 1 FROM leases WHERE id = ?", (lease,)).fetchone():
        raise LeaseEnded(f"lease {lease} has ended")


def _forget(database: sqlite3.Connection, revision: int) -> None:
    if revision > 0:
        database.execute("DELETE FROM events WHERE revision <= ?", (revision,))
        database.execute("UPDATE state SET forgotten = MAX(forgotten, ?)", (revision,))


def _remedy(error: Exception) -> str:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return "the file is damaged: move it away and start again; numbers are drawn again and mostly stay the same"
    if "locked" in text:
        return "another process holds the store for long: see who with fuser"
    return "check the file, its directory and the space on its disk"
