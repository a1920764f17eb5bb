"""The journal: what a crash in the middle of a transaction is undone from, and what has been done so far.

    entry = journal.open(plan)             # on disk before the first write
    journal.commit(entry)                  # or journal.take_back(entry, reason)
    journal.recover(tables)                # at every start, and before the next change if a take-back failed

A directory with `open.json` (while a transaction runs: a line with format and checksum, then what undoes it) and
`history.jsonl`. A transaction is applied once its record is in the history. The caller holds the host lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.engine.change import Delta
from reconciler.engine.document import decode, encode
from reconciler.engine.durable import sync_directory, write_durably
from reconciler.engine.history import History
from reconciler.engine.plan import Plan
from reconciler.engine.record import Record, Result, from_plain, to_plain
from reconciler.engine.recovery import recover
from reconciler.engine.table import Table
from reconciler.engine.values import compact
from reconciler.errors import ApplyError, UsageError

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction that has begun: its record as it would be now, and the clock when it began, in seconds."""

    record: Record
    started: float


def _utc() -> datetime:
    return datetime.now(UTC)


class Journal:
    """The journal in a directory, which is made at the first use."""

    def __init__(
        self,
        directory: Path,
        *,
        now: Callable[[], datetime] = _utc,
        clock: Callable[[], float] = time.monotonic,
        keep: int = KEPT,
    ) -> None:
        self._directory = directory
        self._open = directory / "open.json"
        self._history = History(directory / "history.jsonl", keep)
        self._now = now
        self._clock = clock
        self._keep = keep

    @property
    def unfinished(self) -> bool:
        """Whether a transaction was begun and neither committed nor taken back."""
        return self._open.exists()

    def history(self, limit: int | None = None) -> list[Record]:
        """Newest first. Raises OSError."""
        return self._history.newest_first(self._keep if limit is None else limit)

    def open(self, plan: Plan, notes: Sequence[str] = ()) -> Entry:
        """Begin: what undoes `plan` is on disk when this returns. `notes` go into its record.

        Raises ApplyError if it cannot be written, or if an earlier transaction is unfinished.
        """
        if self.unfinished:
            raise ApplyError("an interrupted transaction is not undone yet", remedy="undo it first: Journal.recover")
        record = replace(self._record(plan), notes=tuple(notes))
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._open, _content(record, plan))
            sync_directory(self._directory)
        except OSError as error:
            with suppress(OSError):
                self._open.unlink(missing_ok=True)
            raise ApplyError(f"the journal cannot be written: {error}; nothing was changed") from error
        return Entry(record, self._clock())

    def commit(self, entry: Entry) -> Record:
        """The transaction counts from now on. Raises ApplyError if the journal cannot be written."""
        return self._close(replace(entry.record, duration_ms=self._elapsed_ms(entry)))

    def take_back(self, entry: Entry, reason: str) -> Record:
        """The transaction has been undone. Raises ApplyError if the journal cannot be written."""
        duration_ms = self._elapsed_ms(entry)
        return self._close(replace(entry.record, result=Result.ROLLED_BACK, reason=reason, duration_ms=duration_ms))

    def recover(self, tables: Mapping[str, Table]) -> Record | None:
        """Undo the transaction that a crash interrupted: each row becomes what it was, whatever it is now.

        Returns its record, or None if there was nothing to undo. Rows that cannot be restored are named in the
        record's reason. An entry that was cut short is set aside: it is complete before the first row is written, so
        nothing was. Raises ApplyError if a newer version wrote the entry, or the journal cannot be written.
        """
        try:
            content = self._open.read_bytes()
        except FileNotFoundError:
            return None
        payload = _payload(content)
        if payload is None:
            self._set_aside()
            return None
        record = from_plain(payload["record"])
        if any(done.id == record.id for done in self.history()):
            self._open.unlink()
            return None
        deltas, complaints = _decode(payload["undo"], tables)
        complaints += recover(deltas, tables)
        record = self._close(replace(record, result=Result.ROLLED_BACK, reason=_reason(complaints)))
        log.warning("undone after a crash: commit=%s %s", record.commit, record.reason)
        return record

    def _close(self, record: Record) -> Record:
        try:
            self._history.append(record)
            self._open.unlink()
        except OSError as error:
            raise ApplyError(f"the journal cannot be written: {error}") from error
        return record

    def _record(self, plan: Plan) -> Record:
        now = self._now()
        name = f"{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}"
        return Record(name, plan.commit, plan.base, plan.digest, now, 0.0, plan.counts, Result.APPLIED)

    def _elapsed_ms(self, entry: Entry) -> float:
        return (self._clock() - entry.started) * 1e3

    def _set_aside(self) -> None:
        aside = self._directory / "torn.json"
        log.warning("a journal entry was cut short and nothing had been written under it: moved to %s", aside)
        self._open.replace(aside)


def _content(record: Record, plan: Plan) -> bytes:
    undo = [encode(delta.inverse()) for delta in plan.deltas]
    body = json.dumps({"record": to_plain(record), "undo": undo}, separators=(",", ":")).encode()
    return compact({"format": FORMAT, "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n" + body


def _payload(content: bytes) -> dict[str, Any] | None:
    """What `_content` wrote; None if it is not whole."""
    head, _, body = content.partition(b"\n")
    try:
        header = json.loads(head)
        version, checksum = header["format"], header.get("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if version != FORMAT:
        raise ApplyError(
            f"the open journal entry has format {version}, this version reads format {FORMAT}",
            remedy="start the version that wrote it once: it undoes what it left",
        )
    if hashlib.sha256(body).hexdigest() != checksum:
        return None
    payload: dict[str, Any] = json.loads(body)
    return payload


def _decode(undo: list[Any], tables: Mapping[str, Table]) -> tuple[list[Delta], list[str]]:
    deltas, complaints = [], []
    for document in undo:
        try:
            deltas.append(decode(document, tables))
        except UsageError as error:
            complaints.append(str(error))
    return deltas, complaints


def _reason(complaints: list[str]) -> str:
    if not complaints:
        return "interrupted"
    return f"interrupted; {len(complaints)} not restored: {'; '.join(complaints[:3])}"
