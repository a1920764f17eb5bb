"""What files say, kept on disk between processes: one SQLite file of pickled manifests, by the hash of their bytes.

Losing it costs time only, so it is thrown away at the first doubt: a broken file, a checksum that does not match, a
directory that others may write to. An entry is only read by the very code that wrote it. Unpickling makes nothing but
our own frozen values.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from reconciler import model, shipped
from reconciler.model.balancing import Algorithm
from reconciler.model.cluster import AllowLocalhost, DirectReturn, Enforcement, NetworkMode, StoreKind, XdpMode
from reconciler.model.policy import Scope
from reconciler.model.selector import Operator
from reconciler.model.service import AllUnhealthy, FamilyPolicy, HealthKind, ServiceType, TrafficPolicy
from reconciler.source.manifests import Manifest

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ENTRIES = 20_000
_DAY_S = 86_400
_WAIT_S = 2.0  # for another process that writes
_AT_ONCE = 500  # keys in a query; SQLite takes 999 at least
_ENUMS = (
    Algorithm,
    AllUnhealthy,
    AllowLocalhost,
    DirectReturn,
    Enforcement,
    FamilyPolicy,
    HealthKind,
    NetworkMode,
    Operator,
    Scope,
    ServiceType,
    StoreKind,
    TrafficPolicy,
    XdpMode,
)
_SAFE = ("reconciler.model.", "reconciler.source.")
_SAFE_OTHERS = {
    *(("ipaddress", f"IPv{family}{kind}") for family in (4, 6) for kind in ("Address", "Network")),
    ("dataclasses", "_dataclass_setstate"),
}


class Archive:
    """Manifests on disk. Every method does nothing, or gives nothing, where the disk does not play along."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "manifests.sqlite"
        self._usable = _is_ours(directory)
        self._code = _fingerprint() if self._usable else ""

    def get(self, keys: Collection[str]) -> dict[str, Manifest]:
        """Those of the keys that are there."""
        return self._attempt(lambda database: self._found(database, list(keys))) or {}

    def _found(self, database: sqlite3.Connection, keys: list[str]) -> dict[str, Manifest]:
        found: dict[str, Manifest] = {}
        for some in _chunks(keys):
            query = f"SELECT key, digest, value FROM manifest WHERE code = ? AND key IN ({_marks(some)})"
            rows = database.execute(query, (self._code, *some))
            found |= {key: manifest for key, digest, value in rows if (manifest := _unpickled(key, digest, value))}
            _touch(database, some)
        return found

    def put(self, manifests: Mapping[str, Manifest]) -> None:
        """Keep these, and drop what was unused for longest above `MAX_ENTRIES`."""
        values = {key: _pickled(manifest) for key, manifest in manifests.items()}
        rows = [(key, self._code, _digest(key, value), value, _today()) for key, value in values.items()]
        self._attempt(lambda database: self._keep(database, rows))

    def _keep(self, database: sqlite3.Connection, rows: list[tuple[str, str, bytes, bytes, int]]) -> None:
        database.executemany("REPLACE INTO manifest VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("DELETE FROM manifest WHERE code != ?", (self._code,))
        database.execute(
            "DELETE FROM manifest WHERE key IN (SELECT key FROM manifest ORDER BY used DESC LIMIT -1 OFFSET ?)",
            (MAX_ENTRIES,),
        )

    def _attempt(self, use: Callable[[sqlite3.Connection], T]) -> T | None:
        """One transaction; None where the archive is of no use."""
        if not self._usable:
            return None
        try:
            with closing(sqlite3.connect(self._file, timeout=_WAIT_S)) as database, database:
                database.execute("PRAGMA synchronous = OFF")  # a torn file is found out and thrown away
                database.execute(
                    "CREATE TABLE IF NOT EXISTS manifest "
                    "(key TEXT PRIMARY KEY, code TEXT, digest BLOB, value BLOB, used INTEGER) WITHOUT ROWID"
                )
                return use(database)
        except sqlite3.OperationalError as e:  # locked, no room, no permission: not worth an error
            log.info("manifest archive unused file=%s reason=%s", self._file, e)
        except sqlite3.DatabaseError as e:
            log.warning("manifest archive thrown away file=%s reason=%s", self._file, e)
            self._file.unlink(missing_ok=True)
        return None


def _touch(database: sqlite3.Connection, keys: list[str]) -> None:
    """Note that they were used; a write a day at most."""
    today, marks = _today(), _marks(keys)
    old = f"SELECT 1 FROM manifest WHERE used < ? AND key IN ({marks}) LIMIT 1"
    if database.execute(old, (today, *keys)).fetchone():
        database.execute(f"UPDATE manifest SET used = ? WHERE key IN ({marks})", (today, *keys))


def _today() -> int:
    return int(time.time()) // _DAY_S


def _marks(keys: list[str]) -> str:
    return ",".join("?" * len(keys))


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]


def _is_ours(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as e:
        log.info("manifest archive unused directory=%s reason=%s", directory, e)
        return False
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning("manifest archive unused directory=%s reason=others may write to it", directory)
        return False
    return True


def _fingerprint() -> str:
    """A digest of the code and the schemas that manifests come out of."""
    digest = hashlib.blake2b(digest_size=16)
    for directory in (Path(__file__).parent, Path(next(iter(model.__path__))), shipped.schemas()):
        for path in sorted(directory.glob("*.py" if directory != shipped.schemas() else "*.json")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + b"\0" + value, digest_size=16).digest()


def _pickled(manifest: Manifest) -> bytes:
    """Enums by value: their own way needs getattr, which has no place in what is read back."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=5)
    pickler.dispatch_table = dict.fromkeys(_ENUMS, _by_value)
    pickler.dump(manifest)
    return out.getvalue()


def _by_value(member: Enum) -> tuple[type[Enum], tuple[Any]]:
    return type(member), (member.value,)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if "." not in name and (module.startswith(_SAFE) or (module, name) in _SAFE_OTHERS):
            found = super().find_class(module, name)
            if isinstance(found, type) or (module, name) in _SAFE_OTHERS:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a manifest")


def _unpickled(key: str, digest: bytes, value: bytes) -> Manifest | None:
    if _digest(key, value) != digest:
        log.warning("manifest archive entry ignored key=%s reason=checksum", key)
        return None
    try:
        found = _Unpickler(io.BytesIO(value)).load()
    except Exception as e:  # whatever a broken pickle raises
        log.warning("manifest archive entry ignored key=%s reason=%s", key, e)
        return None
    return found if isinstance(found, Manifest) else None
