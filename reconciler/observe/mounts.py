"""Mounts that come and go in this mount namespace: a network namespace is there once it is mounted at its path.

inotify tells of the empty file that iproute2 makes for it, and not of the mount. Source: proc_pid_mountinfo(5), kernel
fs/proc_namespace.c (mounts_poll).
"""

from __future__ import annotations

import os
import select

MOUNTS = "/proc/self/mountinfo"


class MountWatch:
    """`fileno()` is readable after any mount or unmount, until `read`. Does not tell which.

    The file itself is always readable, and says by priority that it changed; an event loop only knows readable, hence
    the epoll(7) of its own.
    """

    def __init__(self) -> None:
        self._file = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.epoll()
        self._changes.register(self._file, select.EPOLLPRI | select.EPOLLET)

    def fileno(self) -> int:
        return self._changes.fileno()

    def read(self) -> None:
        self._changes.poll(0)

    def close(self) -> None:
        self._changes.close()
        os.close(self._file)
