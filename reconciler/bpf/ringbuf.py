"""Records that programs send to user space through a ring buffer, read as they come."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from reconciler.bpf.libbpf import SAMPLE, library, pointer

_STOP = -1  # what a callback answers to be called no more; its record counts as read


class RingBuffer:
    """The only reader of one ring buffer map. `fileno()` becomes readable when there are records.

    `receive` gets each record as bytes of its own. If it raises, `consume` does; the record is gone.
    """

    def __init__(self, map_descriptor: int, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._failure: BaseException | None = None
        self._left = 0
        self._count = 0
        self._sample = SAMPLE(self._handle)
        made = library().ring_buffer__new(map_descriptor, ctypes.cast(self._sample, ctypes.c_void_p), None, None)
        self._buffer = pointer(made, "opening a ring buffer")

    def fileno(self) -> int:
        """For select, epoll and event loops."""
        return int(library().ring_buffer__epoll_fd(self._buffer))

    def consume(self, limit: int = 1 << 20) -> int:
        """Hand over the records that are there, at most `limit`, without waiting. Returns how many."""
        self._left, self._count, self._failure = limit, 0, None
        library().ring_buffer__consume(self._buffer)
        if self._failure:
            raise self._failure
        return self._count

    def close(self) -> None:
        """Idempotent. The map stays, and whoever opens it next gets what was not read."""
        if self._buffer:
            library().ring_buffer__free(self._buffer)
            self._buffer = 0

    def _handle(self, _: int, data: int, size: int) -> int:
        self._count += 1
        self._left -= 1
        try:
            self._receive(ctypes.string_at(data, size))
        except BaseException as failure:  # must not cross C; consume() raises it
            self._failure = failure
            return _STOP
        return 0 if self._left > 0 else _STOP
