"""What was applied to this host and what was taken back: an append-only file of JSON lines, bounded in length."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from reconciler.engine.durable import replace_durably, sync_directory, write_all
from reconciler.engine.record import Record, from_plain, to_plain
from reconciler.engine.values import compact

log = logging.getLogger(__name__)


class History:
    """The records in a file; the last `keep` of them are kept, up to twice as many lie in the file."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep

    def append(self, record: Record) -> None:
        """On disk when this returns. Raises OSError."""
        line = compact(to_plain(record)).encode() + b"\n"
        new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a crash in the middle of an append
            write_all(descriptor, b"\n" + line if torn else line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_directory(self._path.parent)
        try:
            self._compact()
        except OSError as error:  # the record is there: a file that is too long is no reason to take it back
            log.warning("the history stays longer than it should be path=%s error=%s", self._path, error)

    def newest_first(self, limit: int) -> list[Record]:
        """At most `limit`; lines that a crash cut short are left out."""
        records: list[Record] = []
        for line in reversed(self._lines()):
            if len(records) == limit:
                break
            if (record := _parse(line)) is not None:
                records.append(record)
        return records

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def _compact(self) -> None:
        lines = self._lines()
        if len(lines) > 2 * self._keep:
            replace_durably(self._path, b"\n".join([*lines[-self._keep :], b""]))


def _parse(line: bytes) -> Record | None:
    try:
        return from_plain(json.loads(line))
    except (ValueError, KeyError, TypeError):
        return None
