"""Git notes beside the commits of the policy repository: `git log --notes=plumb`.

Written by `git fast-import`, which knows how trees of notes are laid out and moves the ref only forward, so that
nobody's note is lost: git-fast-import(1), "notemodify". It runs as the owner of the repository: what it leaves there
must not be in the way of that user's next push.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reconciler.errors import RepositoryError

REF = "refs/notes/plumb"
TIMEOUT_S = 60.0
_INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_QUARANTINE_PATH")
_WHO = "plumb <plumb@localhost> now"
_MOVED = (b"Not updating", b"cannot lock ref")  # what git-fast-import(1) says when somebody else was first


class Notes:
    """Of one repository. Reads all of them once, and again when somebody else has moved the ref."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._tip = ""
        self._texts: dict[str, str] = {}

    def read(self) -> Mapping[str, str]:
        """commit -> text. Raises RepositoryError."""
        tip = _git(self._repository, "for-each-ref", "--format=%(objectname)", REF).decode().strip()
        if tip != self._tip:
            self._texts = _texts(self._repository) if tip else {}
            self._tip = tip
        return self._texts

    def write(self, texts: Mapping[str, str]) -> bool:
        """All of them, or none: then the ref has moved since `read`. Commits that are not here are left out.

        Raises RepositoryError.
        """
        there = _commits(self._repository, texts)
        wanted = {commit: text for commit, text in texts.items() if commit in there and self._texts.get(commit) != text}
        if not wanted:
            return True
        done = _run(self._repository, _stream(self._tip, wanted), "fast-import", "--quiet", "--date-format=now")
        if done.returncode and not any(said in done.stderr for said in _MOVED):
            raise _failure("fast-import", done)
        if done.returncode:
            return False
        self._tip = _git(self._repository, "rev-parse", REF).decode().strip()
        self._texts |= wanted
        return True


def _stream(tip: str, texts: Mapping[str, str]) -> bytes:
    lines = [f"commit {REF}\ncommitter {_WHO}\n".encode(), _data("plumb: what became of commits\n")]
    if tip:
        lines.append(f"from {tip}\n".encode())
    for commit, text in texts.items():
        lines += [f"N inline {commit}\n".encode(), _data(text)]
    return b"".join([*lines, b"done\n"])


def _data(text: str) -> bytes:
    content = text.encode(errors="replace")
    return b"data %d\n%s\n" % (len(content), content)


def _texts(repository: Path) -> dict[str, str]:
    listed = [line.split() for line in _git(repository, "notes", f"--ref={REF}", "list").decode().splitlines()]
    content = _git(repository, "cat-file", "--batch", feed="".join(f"{note}\n" for note, _ in listed))
    found = {}
    at = 0
    for _, commit in listed:  # git-cat-file(1), "BATCH OUTPUT"
        end = content.index(b"\n", at)
        size = int(content[at:end].split()[2])
        found[commit] = content[end + 1 : end + 1 + size].decode(errors="replace")
        at = end + 1 + size + 1
    return found


def _commits(repository: Path, names: Iterable[str]) -> set[str]:
    feed = "".join(f"{name}\n" for name in names)
    told = _git(repository, "cat-file", "--batch-check=%(objectname) %(objecttype)", feed=feed).decode()
    return {line.split()[0] for line in told.splitlines() if line.endswith(" commit")}


def _git(repository: Path, *arguments: str, feed: str = "") -> bytes:
    done = _run(repository, feed.encode(), *arguments)
    if done.returncode:
        raise _failure(arguments[0], done)
    return done.stdout


def _run(repository: Path, feed: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _INHERITED} | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments],
            input=feed,
            capture_output=True,
            env=environment,
            timeout=TIMEOUT_S,
            **_as_owner(repository),
        )
    except subprocess.TimeoutExpired:
        raise RepositoryError(f"{repository}: git {arguments[0]} did not end within {TIMEOUT_S:g} s") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise RepositoryError(f"{repository}: git cannot be run as its owner: {error}") from error


def _as_owner(repository: Path) -> dict[str, Any]:
    owner = repository.stat()
    if owner.st_uid == os.geteuid():
        return {}
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


def _failure(what: str, done: subprocess.CompletedProcess[bytes]) -> RepositoryError:
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return RepositoryError(f"git {what}: {said[0] if said else f'exit code {done.returncode}'}")
