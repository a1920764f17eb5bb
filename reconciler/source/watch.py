"""One ref of the policy repository, watched: whoever moves it, and however, the new commit is told.

Events only say when to look; what counts is what the ref then says. Directories that are replaced (a fresh clone, a
restored backup) are noticed from the directory above and watched anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import git
from git.refs.symbolic import SymbolicReference
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

from reconciler.errors import RepositoryError

log = logging.getLogger(__name__)

# Reading is an event too, and reading is what we do: only what changes something is asked for.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]

_Inode = tuple[int, int]


def current(repository: str | Path, ref: str) -> str | None:
    """The full hex name that a ref (`refs/heads/main`, `HEAD`) holds; None if it or the repository is not there.

    Starts no process.
    """
    try:
        with git.Repo(repository, expand_vars=False) as opened:
            return str(SymbolicReference.dereference_recursive(opened, ref))
    except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError, ValueError, OSError):
        return None


class RefWatcher(FileSystemEventHandler):
    """Owns watchdog's threads. `callback(commit)` runs in one of them, once for each new commit of the ref, and
    with '' when the ref or the repository is gone.

    After `start` that one thread alone changes anything here, so there is no lock.
    """

    def __init__(self, repository: str | Path, ref: str, callback: Callable[[str], None]) -> None:
        self._repository = Path(repository).absolute()
        self._ref = ref
        self._callback = callback
        self._observer = Observer()
        self._watches: dict[Path, tuple[_Inode, ObservedWatch]] = {}
        self._last = ""

    def start(self) -> None:
        """What the ref holds now is known, not told. Raises RepositoryError if nothing can be watched."""
        self._last = current(self._repository, self._ref) or ""
        self._attach()
        if not self._watches:
            raise RepositoryError(f"{self._repository.parent} cannot be watched: there is no such directory")
        try:
            self._observer.start()
        except OSError as e:
            raise RepositoryError(
                f"{self._repository} cannot be watched: {e.strerror}", remedy="raise fs.inotify.max_user_watches"
            ) from e
        # The ref may have moved before the kernel began to watch: a first look, in the thread of all others.
        _, watch = next(iter(self._watches.values()))
        self._observer.event_queue.put((FileModifiedEvent(watch.path), watch))

    def stop(self) -> None:
        """Ends the threads; fine before `start`, and twice."""
        self._observer.stop()
        if self._observer.is_alive():
            self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        try:
            if isinstance(event, DirDeletedEvent | DirMovedEvent):
                self._detach(Path(os.fsdecode(event.src_path)))
            self._look()
        except Exception:  # the thread must live on to see the next change
            log.exception("ref not followed repository=%s ref=%s", self._repository, self._ref)

    def _look(self) -> None:
        self._attach()
        commit = current(self._repository, self._ref) or ""
        if commit != self._last:
            self._last = commit
            self._callback(commit)

    def _detach(self, gone: Path) -> None:
        """A directory that was removed takes its watch with it, and its inode number may be given to the next one."""
        for directory in list(self._watches):
            if directory == gone or gone in directory.parents:
                self._observer.unschedule(self._watches.pop(directory)[1])

    def _attach(self) -> None:
        """Make the watches be on the directories that are there now."""
        for directory, recursive in self._directories():
            inode = _inode(directory)
            held = self._watches.get(directory)
            if held is not None and held[0] == inode:
                continue
            if held is not None:
                self._detach(directory)
            if inode is None:
                continue
            try:
                watch = self._observer.schedule(self, str(directory), recursive=recursive, event_filter=_EVENTS)
            except OSError as e:  # gone again since it was looked at, or out of inotify watches
                log.warning("directory not watched directory=%s reason=%s", directory, e)
                continue
            self._watches[directory] = inode, watch

    def _directories(self) -> Iterator[tuple[Path, bool]]:
        """Directories, and whether all below them counts too; the uppermost first."""
        own = _git_directory(self._repository)
        yield self._repository.parent, False
        if own != self._repository:
            yield own.parent, False
        yield own, False  # HEAD and packed-refs
        yield own / "refs", True


def _git_directory(repository: Path) -> Path:
    """Of a linked work tree it is the one that all of them share."""
    try:
        with git.Repo(repository, expand_vars=False) as opened:
            return Path(opened.common_dir).resolve()
    except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError, ValueError, OSError):
        below = repository / ".git"
        return below if below.exists() else repository


def _inode(directory: Path) -> _Inode | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
