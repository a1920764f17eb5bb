"""A table: one kind of thing that the host holds for us, readable and writable as rows.

Nothing else in the system writes to the kernel. A table is level-triggered: it is asked what there is and told what
should be, and it never remembers what it did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.rows import Columns, DictRows, Key, Row


class Flip(Protocol):
    """One switch for several tables: what they wrote is invisible to packets until it is flipped.

    `begin` throws away whatever an earlier transaction prepared and never flipped. Calling `flip` with nothing
    prepared is allowed and changes nothing that a packet can see. `settle` returns when no packet is on its way any
    more that began before the last flip.
    """

    def begin(self) -> None: ...

    def flip(self) -> None: ...

    def settle(self) -> None: ...


class DictTable(Protocol):
    """A table of frozen rows.

    name     as the plan shows it
    after    names of the tables whose rows must exist before ours; deletes run in reverse
    key_type, row_type    what the plan's JSON is read back as
    flip     if set, `write` is called once with upserts and deletes together, and nothing counts before the flip
    """

    name: str
    after: tuple[str, ...]
    key_type: type
    row_type: type
    flip: Flip | None

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """Our rows, or those among `only` that are there. Foreign rows are invisible. Raises KernelError."""
        ...

    def write(self, upserts: Mapping[Key, Row], deletes: Collection[Key]) -> None:
        """Make the rows be there, and be gone. Idempotent: what is already so is success. Raises KernelError."""
        ...


class ColumnTable(Protocol):
    """A table too big for Python objects; the same contract, with structured arrays.

    key_dtype, value_dtype    of `live()` and of what `write` takes
    """

    name: str
    after: tuple[str, ...]
    key_dtype: np.dtype[np.void]
    value_dtype: np.dtype[np.void]
    flip: Flip | None

    def live(self, only: NDArray[np.void] | None = None) -> Columns: ...

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        """`deletes` are keys."""
        ...


class Gate(DictTable, Protocol):
    """A table whose rows open a way that other tables judge: they go before every flip, and come after it.

    So no packet takes the new way with a verdict of the old state, nor the old way with one of the new; between the two
    a row that changes is not there. `gate` is True.
    """

    gate: bool

    def is_same_way(self, before: Row, after: Row) -> bool:
        """Whether a row may become the other in place: the way is the same, what differs judges nothing."""
        ...


Table = DictTable | ColumnTable
