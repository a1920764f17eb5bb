"""One number for what a plan does: sha256 over its content, whatever the order of its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.change import ColumnDelta, Delta, DictDelta
from reconciler.engine.rows import Columns
from reconciler.engine.values import compact, to_plain

_ORIGIN_BYTES = 16  # of the sha256 of a row's origin


def digest(commit: str, base: str, deltas: Iterable[Delta]) -> str:
    """As 64 hex digits. Sorts the rows: 1,000,000 of 20 bytes take about half a second."""
    total = hashlib.sha256()
    _add(total, compact([commit, base]).encode())
    for delta in sorted(deltas, key=lambda delta: delta.table):
        _add(total, delta.table.encode())
        for part in _dict_content(delta) if isinstance(delta, DictDelta) else _column_content(delta):
            _add(total, part)
    return total.hexdigest()


def _add(total: hashlib._Hash, part: bytes) -> None:
    total.update(len(part).to_bytes(8, "little"))  # so that no two contents run together into the same bytes
    total.update(part)


def _dict_content(delta: DictDelta) -> Iterator[bytes]:
    lines = [compact(to_plain([c.key, c.before, c.after, c.origin])) for c in delta]
    yield "\n".join(sorted(lines)).encode()


def _column_content(delta: ColumnDelta) -> Iterator[bytes]:
    before, after, split = delta.before, delta.after, delta.changed
    yield compact([str(after.keys.dtype), str(after.values.dtype)]).encode()
    yield _sorted_rows(*_matrices(after.take(slice(split, None))))
    yield _sorted_rows(*_matrices(before.take(slice(0, split))), *_matrices(after.take(slice(0, split))))
    yield _sorted_rows(*_matrices(before.take(slice(split, None))))


def _matrices(columns: Columns) -> list[NDArray[np.uint8]]:
    """Keys, values and origins, each as rows of bytes."""
    hashed = [hashlib.sha256(compact(to_plain(origin)).encode()).digest()[:_ORIGIN_BYTES] for origin in columns.origins]
    origins = np.frombuffer(b"".join([*hashed, bytes(_ORIGIN_BYTES)]), np.uint8).reshape(-1, _ORIGIN_BYTES)
    of = columns.origin_of if len(columns.origin_of) else np.full(len(columns), -1, np.int32)
    return [_bytes(columns.keys), _bytes(columns.values), origins.take(of, axis=0, mode="wrap")]


def _bytes(records: NDArray[np.void]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(records).view(np.uint8).reshape(len(records), records.dtype.itemsize)


def _sorted_rows(*matrices: NDArray[np.uint8]) -> bytes:
    rows = np.concatenate(matrices, axis=1)
    if not len(rows):
        return b""
    return np.sort(rows.view(f"S{rows.shape[1]}").ravel()).tobytes()
