"""The host lock: at any time one process writes to this host.

    with host_lock(Path("/run/plumbline/lock"), "plumb apply"): ...

It is a flock, which the kernel releases when the process ends, however it ends. The file says who holds it.
Source: flock(2).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import Busy, PermissionMissing


@contextmanager
def host_lock(path: Path, holder: str) -> Iterator[None]:
    """Hold the lock, saying that `holder` (a daemon, a command) does. Directories are made where they are missing.

    Raises Busy, naming the process and what it is, if another holds it; PermissionMissing if the file cannot be opened.
    """
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held_by = os.pread(descriptor, 4096, 0).decode(errors="replace").strip() or "another process"
            raise Busy(f"this host is held by {held_by}", remedy="wait until it has finished, or stop it") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{holder} (pid {os.getpid()})\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise PermissionMissing(f"the host lock {path} cannot be opened: {error.strerror}") from error
