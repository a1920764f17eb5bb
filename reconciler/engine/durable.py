"""Files that are on disk when a function returns. Source: fsync(2), rename(2)."""

from __future__ import annotations

import os
from pathlib import Path


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_durably(path: Path, data: bytes) -> None:
    """The file has the old content or the new one, whenever the machine stops."""
    fresh = path.with_name(path.name + ".new")
    write_durably(fresh, data)
    fresh.replace(path)
    sync_directory(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """The content is on disk when this returns; its name only after `sync_directory`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
