"""The tables of the embedded store, and how its file is opened.

WAL lets others read while one writes; `synchronous=FULL` makes a commit survive power loss, because an identity that
was handed out and forgotten could be handed out again with another meaning. Source: sqlite.org/wal.html,
sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import StoreError

VERSION = 1
BUSY_TIMEOUT_S = 10.0
CACHE_KIB = 256  # of the 2 MiB that each process would keep: the kernel has the same pages, and reads are seldom

_TABLES = """
CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER) WITHOUT ROWID;
CREATE INDEX items_by_lease ON items (lease) WHERE lease IS NOT NULL;
CREATE TABLE events (revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key))
    WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL, ends_s REAL NOT NULL);
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, forgotten INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0, 0);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the store's file, which is made if it is not there, readable by its owner only.

    Raises sqlite3.Error or OSError, and StoreError for a file of a later version.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_opener(path):
        if not path.exists():
            # Never a file that exists: closing it would drop the locks of this process' other connections
            # (sqlite.org/howtocorrupt.html section 2.2).
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute(f"PRAGMA cache_size={-CACHE_KIB}")
            _create(database, path)
        except BaseException:
            database.close()
            raise
    return database


@contextmanager
def _one_opener(path: Path) -> Iterator[None]:
    """SQLite does not wait for another process that switches the same file to WAL: it fails at once."""
    lock = os.open(f"{path}.open", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _create(database: sqlite3.Connection, path: Path) -> None:
    if _version(database) == VERSION:
        return
    database.execute("BEGIN IMMEDIATE")
    found = _version(database)
    if found > VERSION:
        raise StoreError(
            f"{path} has format {found}, this version knows {VERSION}", remedy="install the version that wrote it"
        )
    if found == 0:
        for statement in filter(str.strip, _TABLES.split(";")):
            database.execute(statement)
        database.execute(f"PRAGMA user_version={VERSION}")
    database.execute("COMMIT")


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)
