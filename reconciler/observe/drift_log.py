"""What was found changed behind our back, who did it, and how it was put right."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.model.origin import Origin
from reconciler.observe.process import Process

_KEYS_IN_TEXT = 3
_COMMIT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One table's drift, repaired in one pass.

    what           deleted, changed or added, seen from the row that should be there
    keys           as the table renders them; `more` rows are not named
    by             who did it; None with `unknown_because` where nobody told
    repaired_ms    from the change (where its time is known, else from the pass's begin) to the row being back; None
                   while it is not
    origins        the documents that ask for the rows, as far as they are named; none for rows that should not be there
    """

    time_ns: int  # since 1970, UTC
    table: str
    what: str
    keys: tuple[str, ...]
    commit: str
    by: Process | None = None
    unknown_because: str = ""
    repaired_ms: float | None = None
    origins: tuple[Origin, ...] = ()
    more: int = 0

    def to_json(self) -> dict[str, object]:
        return {
            "time": datetime.fromtimestamp(self.time_ns / 1e9, UTC).isoformat(timespec="microseconds"),
            "table": self.table,
            "what": self.what,
            "keys": list(self.keys),
            "more": self.more,
            "by": None if self.by is None else self.by.to_json(),
            "unknown_because": self.unknown_because,
            "repaired_ms": self.repaired_ms,
            "commit": self.commit,
            "origins": [_origin_json(one) for one in self.origins],
        }

    def __str__(self) -> str:
        """`policy: 2 rows deleted (web tcp/80, web tcp/443) by bpftool ... ; repaired in 0.4 ms to 1a2b..., ...`"""
        return f"{self.table}: {self._rows()} {self.what} ({self._keys()}) {self._who()}; {self._repair()}"

    def _rows(self) -> str:
        count = len(self.keys) + self.more
        return "1 row" if count == 1 else f"{count} rows"

    def _keys(self) -> str:
        more = len(self.keys) + self.more - _KEYS_IN_TEXT
        return ", ".join(self.keys[:_KEYS_IN_TEXT]) + (f" and {more} more" if more > 0 else "")

    def _who(self) -> str:
        return f"by {self.by}" if self.by else f"by an unknown process: {self.unknown_because or 'nobody told'}"

    def _repair(self) -> str:
        if self.repaired_ms is None:
            return "not repaired"
        text = f"repaired in {self.repaired_ms:.1f} ms to {self.commit[:_COMMIT_DIGITS]}"
        return text + (f", {self._documents()}" if self.origins else "")

    def _documents(self) -> str:
        first, others = self.origins[0], len(self.origins) - 1
        counted = {0: "", 1: " and 1 other document"}.get(others, f" and {others} other documents")
        return f"{first.path}:{first.line}{counted}"


def _origin_json(origin: Origin) -> dict[str, object]:
    return {
        "path": origin.path,
        "line": origin.line,
        "kind": origin.kind,
        "name": origin.name,
        "commit": origin.commit,
    }
