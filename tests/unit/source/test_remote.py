"""Fetching the followed branch from a remote: over paths and a real git server, good, forced, hung and broken ones."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.errors import RepositoryError
from reconciler.source.remote import create, fetch, without_credentials
from reconciler.source.watch import current

MAIN = "refs/heads/main"
TIMEOUT_S = 20.0


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(repository: Path, text: str) -> str:
    (repository / "file").write_text(text)
    git(repository, "add", "file")
    git(repository, "commit", "-q", "-m", text)
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    path = tmp_path / "origin"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    commit(path, "one")
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "copy.git"
    create(path, MAIN)
    return path


def test_a_fetch_brings_the_branch_and_what_it_needs(origin: Path, copy: Path) -> None:
    fetch(copy, str(origin), MAIN, TIMEOUT_S)
    assert current(copy, MAIN) == git(origin, "rev-parse", "HEAD")
    assert git(copy, "show", "main:file") == "one"


def test_a_forced_push_is_followed_and_the_commit_before_stays(origin: Path, copy: Path) -> None:
    fetch(copy, str(origin), MAIN, TIMEOUT_S)
    before = git(origin, "rev-parse", "HEAD")
    git(origin, "commit", "-q", "--amend", "-m", "another history")
    fetch(copy, str(origin), MAIN, TIMEOUT_S)
    git(copy, "gc", "-q", "--prune=now")
    assert current(copy, MAIN) == git(origin, "rev-parse", "HEAD") != before
    assert git(copy, "cat-file", "-t", before) == "commit"


def test_a_branch_that_is_gone_leaves_the_copy_where_it_was(origin: Path, copy: Path) -> None:
    fetch(copy, str(origin), MAIN, TIMEOUT_S)
    git(origin, "branch", "-m", "main", "other")
    with pytest.raises(RepositoryError, match="couldn't find remote ref"):
        fetch(copy, str(origin), MAIN, TIMEOUT_S)
    assert current(copy, MAIN) == git(origin, "rev-parse", "HEAD")


def test_a_remote_that_is_not_there_is_named(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(RepositoryError, match="does not appear to be a git repository"):
        fetch(copy, str(tmp_path / "nothing"), MAIN, TIMEOUT_S)


def test_a_broken_object_is_refused(origin: Path, copy: Path) -> None:
    fetch(copy, str(origin), MAIN, TIMEOUT_S)
    good = git(origin, "rev-parse", "HEAD")
    broken = f"tree {git(origin, 'rev-parse', 'HEAD^{tree}')}\nauthor nobody\n\nno committer\n"
    made = subprocess.run(
        ["git", "-C", str(origin), "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        input=broken,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (origin / ".git" / MAIN).write_text(made + "\n")
    with pytest.raises(RepositoryError, match="git fetch"):
        fetch(copy, f"file://{origin}", MAIN, TIMEOUT_S)
    assert current(copy, MAIN) == good


def test_a_server_that_hangs_is_given_up(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung, pytest.raises(RepositoryError, match=r"within 0\.5 s"):
        fetch(copy, f"git://127.0.0.1:{hung.getsockname()[1]}/policy.git", MAIN, 0.5)
    assert list(copy.rglob("*.lock")) == []


def test_a_fetch_can_be_stopped(copy: Path) -> None:
    stop = threading.Event()
    stop.set()
    with socket.create_server(("127.0.0.1", 0)) as hung, pytest.raises(RepositoryError, match="did not end"):
        fetch(copy, f"git://127.0.0.1:{hung.getsockname()[1]}/policy.git", MAIN, 600.0, stop)


def test_a_server_that_talks_garbage_is_refused(copy: Path) -> None:
    with garbage() as port, pytest.raises(RepositoryError, match="git fetch: fatal:"):
        fetch(copy, f"git://127.0.0.1:{port}/policy.git", MAIN, TIMEOUT_S)


def test_it_fetches_from_a_real_git_server(origin: Path, copy: Path) -> None:
    with served(origin.parent) as port:
        fetch(copy, f"git://127.0.0.1:{port}/origin", MAIN, TIMEOUT_S)
    assert current(copy, MAIN) == git(origin, "rev-parse", "HEAD")


def test_a_copy_that_is_there_is_kept(origin: Path, copy: Path) -> None:
    fetch(copy, str(origin), MAIN, TIMEOUT_S)
    create(copy, MAIN)
    assert current(copy, MAIN) is not None


def test_a_password_is_not_told() -> None:
    assert without_credentials("https://me:secret@git.example.org/p.git") == "https://git.example.org/p.git"


@contextmanager
def garbage() -> Iterator[int]:
    """A server that answers the first connection with noise."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\xff\x00 this is not git \x1b" * 100)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()


@contextmanager
def served(directory: Path) -> Iterator[int]:
    """`git daemon`, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    options = ["--reuseaddr", "--listen=127.0.0.1", f"--port={port}", f"--base-path={directory}", "--export-all"]
    server = subprocess.Popen(["git", "daemon", *options, str(directory)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "git daemon does not answer"
        yield port
    finally:
        server.terminate()
        server.wait()
