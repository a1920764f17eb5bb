"""Who may have caused drift: what the kernel told of writers, kept until a pass finds out what was changed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.engine.change import Change, Delta
from reconciler.engine.plan import Plan
from reconciler.engine.render import Fields, key_text
from reconciler.model.origin import Origin
from reconciler.observe.drift_log import DriftReport
from reconciler.observe.process import Process

KEPT = 512
KEYS_KEPT = 100


@dataclass(frozen=True)
class Suspect:
    """`at_ns`: CLOCK_MONOTONIC of the change, as near as it is known.

    `identify` is asked when a report wants to know, which is after the repair.
    """

    at_ns: int
    tables: frozenset[str]
    identify: Callable[[], Process | None]
    unknown_because: str = ""

    @cached_property
    def process(self) -> Process | None:
        return self.identify()


class Suspects:
    """The latest writers, newest last."""

    def __init__(self) -> None:
        self._seen: deque[Suspect] = deque(maxlen=KEPT)

    def add(self, suspect: Suspect) -> None:
        self._seen.append(suspect)

    def forget(self, before_ns: int) -> None:
        """Those of a pass that has ended: what they changed was found by then, or put right by somebody else."""
        while self._seen and self._seen[0].at_ns < before_ns:
            self._seen.popleft()

    def of(self, table: str) -> Suspect | None:
        """Whoever touched the table last; one who is known by name goes before one who is not."""
        touched = [one for one in tuple(self._seen) if table in one.tables]  # the event loop adds meanwhile
        return next((one for one in reversed(touched) if one.process), touched[-1] if touched else None)


def reports(
    plan: Plan, left: Plan | None, suspects: Suspects, fields: Fields, began_ns: int, done_ns: int, commit: str
) -> Iterator[DriftReport]:
    """One for each table, kind of drift, and whether it was repaired. `left` is what still differs afterwards.

    Times are CLOCK_MONOTONIC: of the pass's begin, and of the rows being back.
    """
    open_keys = {(change.table, _hashable(change.key)) for change in left.changes()} if left else frozenset()
    for delta in plan.deltas:
        suspect = suspects.of(delta.table)
        since_ns = suspect.at_ns if suspect and suspect.at_ns <= began_ns else began_ns
        for (what, is_open), changes in _by_kind(delta, open_keys).items():
            yield DriftReport(
                time_ns=time.time_ns(),
                table=delta.table,
                what=what,
                keys=tuple(key_text(change, fields) for change in changes[:KEYS_KEPT]),
                commit=commit,
                by=suspect.process if suspect else None,
                unknown_because=_unknown(suspect),
                repaired_ms=None if is_open else (done_ns - since_ns) / 1e6,
                origins=_origins(changes[:KEYS_KEPT]),
                more=max(0, len(changes) - KEYS_KEPT),
            )


def _by_kind(delta: Delta, open_keys: Set[tuple[str, Any]]) -> dict[tuple[str, bool], list[Change]]:
    kinds: dict[tuple[str, bool], list[Change]] = {}
    for change in delta:
        what = "deleted" if change.before is None else "added" if change.after is None else "changed"
        is_open = bool(open_keys) and (change.table, _hashable(change.key)) in open_keys
        kinds.setdefault((what, is_open), []).append(change)
    return kinds


def _hashable(key: Any) -> Any:
    """A record of a table of columns is its bytes."""
    return key.tobytes() if hasattr(key, "tobytes") else key


def _origins(changes: Iterable[Change]) -> tuple[Origin, ...]:
    """Each once."""
    return tuple(dict.fromkeys(change.origin for change in changes if change.origin))


def _unknown(suspect: Suspect | None) -> str:
    if suspect is None:
        return "nobody was seen"
    return suspect.unknown_because if suspect.process is None else ""
