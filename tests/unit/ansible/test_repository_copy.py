"""The host's copy of the policy repository: a pack brings what it lacks, and nobody else's is written to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconciler.ansible import repository_copy as copy
from reconciler.errors import RepositoryError

MAIN = "refs/heads/main"


def git(repository: Path, *arguments: str, stdin: str = "") -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", *identity, "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, input=stdin).stdout.strip()


@pytest.fixture
def controller(tmp_path: Path) -> Path:
    repository = tmp_path / "controller"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    return repository


@pytest.fixture
def host(tmp_path: Path) -> Path:
    repository = tmp_path / "host" / "policy.git"
    copy.create(repository, MAIN)
    return repository


def commit(repository: Path, text: str) -> str:
    (repository / "file").write_text(text)
    git(repository, "add", "file")
    git(repository, "commit", "-q", "-m", text)
    return git(repository, "rev-parse", "HEAD")


def pack(controller: Path, target: Path, wanted: str, have: str = "") -> Path:
    asked = f"{wanted}\n" + (f"^{have}\n" if have else "")
    command = ["git", "-C", str(controller), "pack-objects", "--revs", "--thin", "--stdout", "-q"]
    target.write_bytes(subprocess.run(command, check=True, capture_output=True, input=asked.encode()).stdout)
    return target


def test_a_copy_says_that_it_is_fed_and_another_repository_does_not(controller: Path, host: Path) -> None:
    assert copy.is_fed(host)
    assert not copy.is_fed(controller)
    assert not copy.is_fed(host / "missing")


def test_a_pack_brings_a_commit_and_a_thin_one_the_next(controller: Path, host: Path, tmp_path: Path) -> None:
    first = commit(controller, "one")
    copy.take(host, pack(controller, tmp_path / "pack", first), first)
    second = commit(controller, "two")
    copy.take(host, pack(controller, tmp_path / "pack", second, have=first), second)
    assert copy.has(host, first)
    assert git(host, "show", f"{second}:file") == "two"


def test_a_pack_that_does_not_complete_its_commit_is_refused(controller: Path, host: Path, tmp_path: Path) -> None:
    first, second = commit(controller, "one"), commit(controller, "two")
    with pytest.raises(RepositoryError):
        copy.take(host, pack(controller, tmp_path / "pack", second, have=first), second)


def test_bytes_that_are_no_pack_are_refused(host: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"nothing of the kind")
    with pytest.raises(RepositoryError, match="pack signature"):
        copy.take(host, tmp_path / "pack", "0" * 40)


def test_a_quarantine_shows_a_commit_and_leaves_the_repository_as_it_was(
    controller: Path, host: Path, tmp_path: Path
) -> None:
    name = commit(controller, "one")
    before = sorted(host.rglob("*"))
    with copy.quarantine(host, pack(controller, tmp_path / "pack", name), name) as environment:
        assert copy.git(host, "show", f"{name}:file", environment=environment) == "one"
    assert sorted(host.rglob("*")) == before
    assert not copy.has(host, name)


def failing(repository: Path, name: str) -> None:
    with copy.following(repository, MAIN, name):
        assert copy.tip(repository, MAIN) == name
        raise ZeroDivisionError


def test_the_branch_moves_and_goes_back_when_the_block_fails(controller: Path, host: Path, tmp_path: Path) -> None:
    first, second = commit(controller, "one"), commit(controller, "two")
    copy.take(host, pack(controller, tmp_path / "pack", second), second)
    with pytest.raises(ZeroDivisionError):
        failing(host, first)
    assert copy.tip(host, MAIN) == ""
    with copy.following(host, MAIN, first):
        pass
    with pytest.raises(ZeroDivisionError):
        failing(host, second)
    assert copy.tip(host, MAIN) == first
