"""Memory after a commit."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from reconciler.daemon.memory import exempt_memory, settle_memory

THREADS = 2
ALLOCATING = f"""
import ctypes, threading
from reconciler.daemon.memory import use_one_arena
{{before}}
all_there = threading.Barrier({THREADS})
threads = [threading.Thread(target=lambda: (bytearray(50_000), all_there.wait())) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


class Knot:
    """A value that is its own circle."""

    def __init__(self) -> None:
        self.itself: Knot | None = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_died_in_a_circle_is_collected_at_once_if_it_is_new_and_else_when_memory_is_settled() -> None:
    older, seen_older = _knot()
    exempt_memory()
    newer, seen_newer = _knot()
    del older, newer
    exempt_memory()
    assert (seen_older() is None, seen_newer() is None) == (False, True)
    settle_memory()
    assert seen_older() is None


def _knot() -> tuple[Knot, weakref.ref[Knot]]:
    made = Knot()
    return made, weakref.ref(made)


def test_what_is_alive_is_exempt_from_collection_and_what_is_not_is_collected() -> None:
    circle: list[object] = []
    circle.append(circle)
    del circle
    settle_memory()
    assert gc.get_freeze_count() > 0
    assert gc.collect() == 0


def test_threads_share_one_arena_of_the_allocator() -> None:
    assert [_arenas(), _arenas("use_one_arena()")] == [1 + THREADS, 1]


def _arenas(before: str = "") -> int:
    """How many a process has of which several threads allocate; malloc_info(3)."""
    done = subprocess.run([sys.executable, "-c", ALLOCATING.format(before=before)], capture_output=True, check=True)
    return done.stdout.count(b"<heap nr=")
