"""Tables that were found as they should be need not be read again while nothing has touched them.

A table that can say what it holds in a few octets, at a fraction of what reading it costs, has a `state`. Once its rows
were compared and nothing differed, that state is a seal: as long as it is the same, and the same rows are asked for,
the next comparison has nothing to find.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from reconciler.engine.change import Delta
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Rows
from reconciler.engine.table import Table


@runtime_checkable
class Stateful(Protocol):
    """`state_pays_from`: fewer rows than that are read and compared sooner than `state` is told."""

    state_pays_from: int

    def state(self) -> bytes | None:
        """The same as before as long as no live row has changed; None if it cannot be told. Raises KernelError."""
        ...


class _Seal(NamedTuple):
    desired: Rows
    complete: bool
    state: bytes


class Seals:
    """What was last found right, by table."""

    def __init__(self) -> None:
        self._seals: dict[str, _Seal] = {}

    def diff(self, table: Table, desired: Rows, complete: bool) -> Delta | None:
        """As `diff_rows` of these and the live rows, which are not read where a seal is whole; None: nothing differs.

        `desired` must not be changed afterwards.
        """
        state = _state(table, len(desired))  # before reading: what comes between shows
        sealed = self._seals.pop(table.name, None)
        whole = sealed and sealed.desired is desired and (sealed.complete, sealed.state) == (complete, state)
        if not whole and (delta := diff_rows(table.name, desired, table.live(), complete)):
            return delta
        if state is not None:
            self._seals[table.name] = _Seal(desired, complete, state)
        return None


def _state(table: Table, rows: int) -> bytes | None:
    return table.state() if isinstance(table, Stateful) and rows >= table.state_pays_from else None
