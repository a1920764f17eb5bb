"""What the journal remembers of one transaction, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from reconciler.engine.change import Counts


class Result(Enum):
    APPLIED = "applied"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction. `counts` are those of the plan (table -> counts), `time` is when it began, in UTC.

    `reason` says why it was taken back; it is empty if it was applied. `notes`: what was left for later, and why.
    """

    id: str
    commit: str
    base: str
    digest: str
    time: datetime
    duration_ms: float
    counts: Mapping[str, Counts]
    result: Result
    reason: str = ""
    notes: tuple[str, ...] = ()


def to_plain(record: Record) -> dict[str, Any]:
    """As JSON values: `counts` is table -> [added, changed, removed]."""
    return {
        "id": record.id,
        "commit": record.commit,
        "base": record.base,
        "digest": record.digest,
        "time": record.time.isoformat(),
        "duration_ms": round(record.duration_ms, 3),
        "counts": {name: [c.added, c.changed, c.removed] for name, c in record.counts.items()},
        "result": record.result.value,
        "reason": record.reason,
        "notes": list(record.notes),
    }


def from_plain(plain: Mapping[str, Any]) -> Record:
    """Raises KeyError, TypeError or ValueError when it is no record."""
    return Record(
        id=plain["id"],
        commit=plain["commit"],
        base=plain["base"],
        digest=plain["digest"],
        time=datetime.fromisoformat(plain["time"]),
        duration_ms=float(plain["duration_ms"]),
        counts={name: Counts(*numbers) for name, numbers in plain["counts"].items()},
        result=Result(plain["result"]),
        reason=plain["reason"],
        notes=tuple(plain.get("notes", ())),  # earlier records have none
    )
