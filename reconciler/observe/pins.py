"""Pins that appear, vanish or move, told by inotify, which works on bpffs too.

Watchdog reads in a thread of its own; the daemon's loop wants a descriptor, hence inotify(7) itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import KernelError

# linux/inotify.h
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED, _ONLYDIR = 0x400, 0x800, 0x2000, 0x4000, 0x8000, 0x01000000
_WANTED = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_HEADER = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, length of the name
_BUFFER_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class What(StrEnum):
    CREATED = "created"
    DELETED = "deleted"
    MOVED = "moved"  # no longer there under that name; what it became shows as created, if we watch it
    LOST = "lost"  # events were lost: anything may have happened anywhere


class PinEvent(NamedTuple):
    """`name` is '' where the directory itself went."""

    directory: Path
    name: str
    what: What


class PinWatch:
    """Watches directories, not what is below their subdirectories. Raises KernelError if one cannot be watched."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "watch pins")
        self._directories: dict[int, Path] = {}
        try:
            for directory in directories:
                self.watch(directory)
        except KernelError:
            self.close()
            raise

    def watch(self, directory: Path) -> None:
        """One more; one that is watched already stays so."""
        path = os.fsencode(directory)
        watch = _checked(_libc.inotify_add_watch(self._descriptor, path, _WANTED), f"watch {directory}")
        self._directories[watch] = directory

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> list[PinEvent]:
        """What happened since the last call, in order; never waits."""
        events: list[PinEvent] = []
        while True:
            try:
                raw = os.read(self._descriptor, _BUFFER_BYTES)
            except BlockingIOError:
                return events
            events += self._decoded(raw)

    def close(self) -> None:
        os.close(self._descriptor)

    def _decoded(self, raw: bytes) -> list[PinEvent]:
        events = []
        at = 0
        while at < len(raw):
            watch, mask, _, length = _HEADER.unpack_from(raw, at)
            at += _HEADER.size + length
            if mask & _OVERFLOW:
                events.append(PinEvent(Path(), "", What.LOST))
            elif mask & _IGNORED:
                self._directories.pop(watch, None)
            elif watch in self._directories:
                name = os.fsdecode(raw[at - length : at].rstrip(b"\0"))
                events.append(PinEvent(self._directories[watch], name, _what(mask)))
        return events


def _what(mask: int) -> What:
    if mask & (_MOVED_FROM | _MOVE_SELF):
        return What.MOVED
    return What.CREATED if mask & (_CREATE | _MOVED_TO) else What.DELETED


def _checked(result: int, doing: str) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    remedy = "raise fs.inotify.max_user_instances" if number == errno.EMFILE else ""
    raise KernelError(f"cannot {doing}: {os.strerror(number)}", remedy=remedy)
