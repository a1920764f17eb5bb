"""Notes of commits in real repositories, with others writing too."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from reconciler.errors import RepositoryError
from reconciler.source.notes import REF, Notes

NOBODY = 65534


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for number in range(3):
        git(path, "commit", "-q", "--allow-empty", "-m", f"commit {number}")
    return path


def commits(repository: Path) -> list[str]:
    return git(repository, "rev-list", "main").split()


def test_git_log_shows_them(repository: Path) -> None:
    newest, before, _ = commits(repository)
    assert Notes(repository).write({newest: "alpha: ü\n", before: "beta: two\nlines\n"})
    shown = git(repository, "log", "--notes=plumb", "--format=%N")
    assert shown.split("\n\n")[:2] == ["alpha: ü", "beta: two\nlines"]


def test_what_was_written_is_read_by_another_process(repository: Path) -> None:
    newest, before, _ = commits(repository)
    Notes(repository).write({newest: "one\n", before: "two\n"})
    assert Notes(repository).read() == {newest: "one\n", before: "two\n"}


def test_the_same_text_is_not_written_twice(repository: Path) -> None:
    notes, newest = Notes(repository), commits(repository)[0]
    notes.write({newest: "one\n"})
    tip = git(repository, "rev-parse", REF)
    assert notes.write({newest: "one\n"})
    assert git(repository, "rev-parse", REF) == tip


def test_a_note_of_somebody_else_meanwhile_is_not_lost(repository: Path) -> None:
    notes, (newest, before, _) = Notes(repository), commits(repository)
    notes.read()
    git(repository, "notes", "--ref=plumb", "add", "-m", "by hand", before)
    assert not notes.write({newest: "one\n"})
    notes.read()
    assert notes.write({newest: "one\n"})
    assert notes.read() == {newest: "one\n", before: "by hand\n"}


def test_many_writers_at_once_lose_nothing(repository: Path) -> None:
    newest = commits(repository)[0]

    def add(name: str) -> None:
        notes = Notes(repository)
        while not notes.write({newest: notes.read().get(newest, "") + f"{name}\n"}):
            pass

    threads = [threading.Thread(target=add, args=(f"writer {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(Notes(repository).read()[newest].splitlines()) == [f"writer {number}" for number in range(4)]


def test_a_commit_that_is_not_here_is_left_out(repository: Path) -> None:
    newest = commits(repository)[0]
    assert Notes(repository).write({"0" * 39 + "1": "gone\n", newest: "here\n"})
    assert Notes(repository).read() == {newest: "here\n"}
    assert not list((repository / ".git").glob("fast_import_crash*"))


def test_a_repository_that_is_gone_is_named(repository: Path) -> None:
    notes = Notes(repository)
    shutil.rmtree(repository)
    with pytest.raises((RepositoryError, FileNotFoundError), match="policy"):
        notes.read()


@pytest.mark.root
def test_files_belong_to_the_owner_of_the_repository() -> None:
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:  # pytest's own is closed to everybody else
        os.chown(directory, NOBODY, NOBODY)
        path = Path(directory)
        _as_nobody(path, "init", "-q", "-b", "main")
        _as_nobody(path, "commit", "-q", "--allow-empty", "-m", "one")
        assert Notes(path).write({_as_nobody(path, "rev-parse", "HEAD"): "one\n"})
        assert {one.stat().st_uid for one in path.rglob("*")} == {NOBODY}


def _as_nobody(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(repository), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, user=NOBODY, group=NOBODY)
    return done.stdout.strip()
