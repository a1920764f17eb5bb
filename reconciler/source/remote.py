"""A copy of a remote policy repository, brought up to one branch of it by `git fetch`.

The copy is bare and ours alone. Its branch moves only once every object of the new commit is there and sound, wherever
the remote's branch went (a forced push is followed); what an earlier commit needs stays, as the branch's log names it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

from reconciler.errors import RepositoryError

_SETTINGS = {
    "core.logAllRefUpdates": "always",
    "fetch.fsckObjects": "true",
    "gc.autoDetach": "false",
}
_UNASKING = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true", "LC_ALL": "C"}
_INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_LOOK_EVERY_S = 0.2
_GRACE_S = 3.0  # for git to remove its lock files
_LONGEST_REASON = 300


def create(repository: Path, ref: str) -> None:
    """An empty bare repository, whole or not at all; one that is there stays as it is. Raises RepositoryError."""
    if repository.exists():
        return
    fresh = None
    try:
        repository.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{repository.name}.", dir=repository.parent))
        _git(fresh, 60.0, "init", "--quiet", "--bare", f"--initial-branch={ref.removeprefix('refs/heads/')}")
        for name, value in _SETTINGS.items():
            _git(fresh, 60.0, "config", name, value)
        fresh.rename(repository)
    except OSError as error:
        raise RepositoryError(f"{repository} cannot be made: {error.strerror}") from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def fetch(repository: Path, remote: str, ref: str, timeout_s: float, stop: Event | None = None) -> None:
    """The branch is where the remote's is. Raises RepositoryError, and leaves it where it was.

    Given up soon after `stop` is set.
    """
    options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--atomic"]
    _git(repository, timeout_s, "fetch", *options, "--", remote, f"+{ref}:{ref}", stop=stop)


def without_credentials(text: str) -> str:
    """For people: a password in an address is nobody's business."""
    return _CREDENTIALS.sub("://", text)


def _git(repository: Path, timeout_s: float, *arguments: str, stop: Event | None = None) -> None:
    """Nobody is there to answer a question, and git's own helpers (ssh) end with it."""
    environment = {name: value for name, value in os.environ.items() if name not in _INHERITED} | _UNASKING
    command = ["git", "-C", str(repository), *arguments]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise RepositoryError(f"git cannot be run: {error}", remedy="apt-get install git") from error
    with process:
        try:
            said = _heard(process, time.monotonic() + timeout_s, stop)
        except BaseException:
            _end(process)
            raise
        if said is None:
            _end(process)
            raise RepositoryError(f"git {arguments[0]} did not end within {timeout_s:g} s")
    if process.returncode:
        raise RepositoryError(_reason(arguments[0], said.decode(errors="replace")))


def _heard(process: subprocess.Popen[bytes], deadline: float, stop: Event | None) -> bytes | None:
    """What it said until its end; None if that did not come in time."""
    while time.monotonic() < deadline and not (stop and stop.is_set()):
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=min(_LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))[1]
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE_S)
            return


def _reason(what: str, said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))] or lines[-1:]
    text = without_credentials("; ".join(dict.fromkeys(telling)))
    return f"git {what}: {text[:_LONGEST_REASON] or 'it failed without a word'}"
