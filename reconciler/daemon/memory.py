"""Memory after a commit: what it took to compile goes back to the system, and what stays is looked through no more.

Otherwise a repair may wait for the collector to walk over every row of the host: 20 ms with 1,000 policies.

Nearly all that a commit replaces goes by its count of references. Looking for what had been there before and died in a
circle takes longer than the rest of a small commit, 350 ms with 10,000 services, so that is done seldom. What is new is
looked through each time: a single exception in a circle may hold all that the commit was compiled to.
"""

from __future__ import annotations

import ctypes
import gc

_libc = ctypes.CDLL(None)
_M_ARENA_MAX = -8  # glibc malloc/malloc.h


def use_one_arena() -> None:
    """Before threads start: each would keep free memory of its own, and nearly all that they do is by turns."""
    if hasattr(_libc, "mallopt"):  # glibc
        _libc.mallopt(_M_ARENA_MAX, 1)


def exempt_memory() -> None:
    """What is alive now is exempt from collection until `settle_memory`. O(what came since the last time)."""
    gc.collect()
    gc.freeze()
    if hasattr(_libc, "malloc_trim"):  # glibc
        _libc.malloc_trim(0)


def settle_memory() -> None:
    """The same after looking through everything: 20 ms with 1,000 policies."""
    gc.unfreeze()
    exempt_memory()
