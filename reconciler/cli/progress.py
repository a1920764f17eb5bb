"""A line on the terminal that says what is being waited for, once the wait is long enough to wonder."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 1.0
_REDRAW_S = 0.5
_CLEAR_LINE = "\r\x1b[2K"


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Shows `what` and the seconds so far on standard error, from the first second on, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_draw, args=(what, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _draw(what: str, done: threading.Event) -> None:
    begun = time.monotonic()
    wait_s = PATIENCE_S
    while not done.wait(wait_s):
        sys.stderr.write(f"{_CLEAR_LINE}{what} … {time.monotonic() - begun:.0f} s")
        sys.stderr.flush()
        wait_s = _REDRAW_S
    if wait_s == _REDRAW_S:
        sys.stderr.write(_CLEAR_LINE)
        sys.stderr.flush()
