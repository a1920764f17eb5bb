"""Work that makes many values and hardly a circle: looking for circles meanwhile costs more than they do.

The collector looks at what is new each time when some hundred values were made, and at all of it when it has grown by a
quarter. 10,000 services of which none changed: 75 ms to compile instead of 400.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected inside, in no thread; also as a decorator. What counts references goes at once as ever."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
