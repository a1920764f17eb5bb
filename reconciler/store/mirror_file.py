"""What a mirror knew last, in a SQLite file: each save is whole, and writes only what has changed.

Losing the newest saves costs nothing but a read of the store, so nothing waits for the disk.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from reconciler.errors import StoreError
from reconciler.store.protocol import Item

log = logging.getLogger(__name__)

_VERSION = 1
_TABLE = "CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID"


class MirrorFile:
    """One process at a time writes it. A file that cannot be read is made anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError as error:
            log.warning("what the store said last is lost file=%s error=%s", path, error)
            _remove(path)
            try:
                self._database = _open(path)
            except sqlite3.Error as again:
                raise StoreError(f"{path}: {again}", remedy="check the directory and the space on its disk") from again

    def load(self) -> list[Item]:
        try:
            return [Item(*row) for row in self._database.execute("SELECT key, value, revision FROM items")]
        except sqlite3.Error as error:
            log.warning("what the store said last cannot be read file=%s error=%s", self._path, error)
            return []

    def save(self, changed: Mapping[str, Item | None]) -> None:
        """None: the key is gone. Where it cannot be written (a full disk) the file stays behind; the log says so."""
        there = [(item.key, item.value, item.revision) for item in changed.values() if item is not None]
        gone = [(key,) for key, item in changed.items() if item is None]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", there)
                self._database.executemany("DELETE FROM items WHERE key = ?", gone)
        except sqlite3.Error as error:
            log.warning("what the store says is not kept file=%s error=%s", self._path, error)

    def close(self) -> None:
        self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=5, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            with database:
                database.execute("DROP TABLE IF EXISTS items")
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        database.close()
        raise
    path.chmod(0o600)
    return database


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
