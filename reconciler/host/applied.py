"""Which commits were applied to this host, by its journal."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.engine.journal import Journal
from reconciler.engine.record import Record, Result
from reconciler.errors import UsageError


def applied(journal: Journal) -> Iterator[Record]:
    """Newest first. What was written to the history and then taken back all the same does not count."""
    taken_back = set()
    for record in journal.history():
        if record.result is Result.ROLLED_BACK:
            taken_back.add(record.id)
        elif record.id not in taken_back:
            yield record


def applied_commit(journal: Journal) -> str:
    """The last one; '' on a host that never had one."""
    return next((record.commit for record in applied(journal)), "")


def commit_before(journal: Journal, present: str) -> str:
    """What the host was at when it first came to `present`: a rollback does not make its way back the next one.

    Raises UsageError if the history does not say.
    """
    oldest_first = reversed(list(applied(journal)))
    before = next((one.base for one in oldest_first if one.commit == present != one.base), "")
    if not before:
        raise UsageError(f"the history has no commit before {present[:12]}", remedy="name one: plumb rollback COMMIT")
    return before
