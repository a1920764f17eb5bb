"""The policy repository: commits, trees and files straight from its objects, bare or not, without a work tree.

GitPython's persistent `git cat-file --batch` serves them, in 40 to 70 us an object. Its gitdb took 30 us for loose and
70 us for packed ones, and knows nothing of the quarantine of a push.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import git

from reconciler.errors import RepositoryError

# What a push in progress says about where its objects are (git-receive-pack(1), "Quarantine Environment").
QUARANTINE = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")
_FIXED = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
_INHERITED = ("GIT_DIR", "GIT_WORK_TREE")  # set inside hooks, and relative there

_REVISION = re.compile(r"[^-\s\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*\Z")
_CHUNK = 1 << 20

TREE, LINK, SUBMODULE = b"40000", b"120000", b"160000"


class Entry(NamedTuple):
    """An entry of a tree; `object` is a hex name."""

    mode: bytes
    name: str
    object: str


class Repository:
    """Owns a `git cat-file` process; not for several threads at once."""

    def __init__(self, path: str | Path, environment: Mapping[str, str] | None = None) -> None:
        """`environment` may name a quarantine. Raises RepositoryError if there is no repository."""
        self.path = Path(path)
        try:
            self._repo = git.Repo(path, expand_vars=False)
        except (git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError) as e:
            raise RepositoryError(
                f"{path} is not a git repository", remedy="make one: plumb init DIR, or git clone its server side"
            ) from e
        self.git_directory = Path(self._repo.git_dir).resolve()
        # Open as long as this is, so that no directory made in its place can get its inode.
        self._directory = os.open(self.git_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._git = self._repo.git
        self._git.update_environment(**_FIXED, **self._inherited(), **self._quarantine(environment or {}))

    def _inherited(self) -> dict[str, str]:
        directory = {"GIT_DIR": str(self.git_directory)}
        return directory if any(name in os.environ for name in _INHERITED) else {}

    def _quarantine(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Paths in it may be relative to the git directory, where hooks run."""
        found = {name: environment[name] for name in QUARANTINE if environment.get(name)}
        for name, value in found.items():
            found[name] = os.pathsep.join(str(self.git_directory / part) for part in value.split(os.pathsep) if part)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._git.clear_cache()
        self._repo.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def __del__(self) -> None:
        if getattr(self, "_directory", -1) >= 0:
            os.close(self._directory)

    def is_current(self) -> bool:
        """Whether the directory is still the one that was opened."""
        try:
            return os.path.samestat(os.fstat(self._directory), os.stat(self.git_directory))
        except OSError:
            return False

    def commit(self, revision: str) -> tuple[str, str]:
        """Full hex names of the commit that a revision names and of its tree."""
        if not _REVISION.match(revision):
            raise RepositoryError(f"{revision!r} is not a revision")
        name, data = self._read(f"{revision}^{{commit}}", f"commit {revision}")
        header, _, tree = data.partition(b"\n")[0].partition(b" ")
        if header != b"tree":
            raise RepositoryError(f"commit {name} is broken", remedy=_BROKEN)
        return name, tree.decode("ascii")

    def tree(self, name: str, path: str) -> list[Entry]:
        """Entries of the tree with this hex name; `path` is for errors."""
        return list(_entries(self._read(name, f"the tree of {path or 'the commit'}")[1], len(name) // 2))

    def file(self, name: str, path: str, limit: int) -> bytes | int:
        """The bytes of a file, or its size if that is above the limit."""
        what = f"{path} (object {name})"
        try:
            found, _, size, stream = self._git.stream_object_data(name)
            data = stream.read(min(size, limit))
            while stream.read(_CHUNK):
                pass
        except (ValueError, OSError) as e:
            raise self._failure(name, what) from e
        if size > limit:
            return int(size)
        self._verify(found.decode(), b"blob", data, size, what)
        return bytes(data)

    def _read(self, name: str, what: str) -> tuple[str, bytes]:
        try:
            found, kind, size, data = self._git.get_object_data(name)  # the first two are bytes, whatever is declared
        except (ValueError, OSError) as e:
            raise self._failure(name, what) from e
        self._verify(found.decode(), kind, data, size, what)
        return found.decode(), data

    def _verify(self, name: str, kind: bytes, data: bytes, size: int, what: str) -> None:
        digest = hashlib.sha1 if len(name) == 40 else hashlib.sha256
        if len(data) != size or digest(b"%s %d\0%s" % (kind, size, data)).hexdigest() != name:
            self._git.clear_cache()
            raise RepositoryError(f"{what} is broken: its content is not what its name says", remedy=_BROKEN)

    def _failure(self, name: str, what: str) -> RepositoryError:
        """What git says about an object that the batch could not give."""
        self._git.clear_cache()
        try:
            self._git.execute(["git", "cat-file", "-t", name])
            said = "it cannot be read"
        except git.exc.GitCommandError as e:
            said = _last_line(e.stderr)
        except git.exc.GitCommandNotFound:
            return RepositoryError("git is not installed", remedy="install it: apt-get install git")
        if "dubious ownership" in said or "dubious ownership" in what:
            return RepositoryError(
                f"git refuses {self.path}: it belongs to another user",
                remedy=f"git config --system --add safe.directory {self.git_directory}",
            )
        if "corrupt" in said or "unable to" in said or "inflate" in said:
            return RepositoryError(f"{what} is broken: {said}", remedy=_BROKEN)
        if (self.git_directory / "shallow").exists():
            return RepositoryError(
                f"{what} is not in this shallow clone", remedy=f"git -C {self.path} fetch --unshallow"
            )
        return RepositoryError(
            f"{what} is not in {self.path}", remedy=f"see what is there: git -C {self.path} log --all"
        )


_BROKEN = "see git fsck; fetch the objects again from another clone"


def resolve(repository: str | Path, revision: str) -> str:
    """The full hex name of the commit that a revision names. Raises RepositoryError."""
    with Repository(repository) as opened:
        return opened.commit(revision)[0]


def _last_line(text: str) -> str:
    lines = [line.strip().strip("'") for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "fatal:" in line or "error:" in line), lines[-1] if lines else "")


def _entries(data: bytes, width: int) -> Iterator[Entry]:
    """Mode, blank, name, NUL, and the object's name in `width` bytes (gitformat-pack(5) leaves trees to the source:
    git tree-walk.c, decode_tree_entry)."""
    at = 0
    while at < len(data):
        blank = data.index(b" ", at)
        end = data.index(b"\0", blank)
        name = data[blank + 1 : end].decode("utf-8", "backslashreplace")
        yield Entry(data[at:blank], name, data[end + 1 : end + 1 + width].hex())
        at = end + 1 + width
