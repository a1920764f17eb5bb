"""A host's copy of the policy repository, fed by Ansible with packs of what it lacks.

Only a repository that was made here is ever written to; it says so itself (`plumb.fed` in its git configuration). Git
is run as it is: importing GitPython alone takes longer than all that a second run asks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import RepositoryError

_FED = "plumb.fed"
_SETTINGS = {_FED: "true", "core.logAllRefUpdates": "always", "gc.autoDetach": "false"}


def git(
    repository: Path, *arguments: str, environment: Mapping[str, str] | None = None, feed: Path | None = None
) -> str:
    """What git prints. `feed` is its standard input. Raises RepositoryError with what git says."""
    command = ["git", "-C", str(repository), *arguments]
    whole = {**os.environ, **(environment or {})}
    try:
        with (feed or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(command, stdin=source, capture_output=True, text=True, env=whole)
    except OSError as error:
        raise RepositoryError(f"git cannot be run: {error}", remedy="apt-get install git") from error
    if done.returncode:
        raise RepositoryError(f"{repository}: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def is_fed(repository: Path) -> bool:
    """Whether it is ours to write to. A repository that does not exist yet is not."""
    try:
        return git(repository, "config", "--type=bool", "--default=false", _FED) == "true"
    except RepositoryError:
        return False


def has(repository: Path, commit: str) -> bool:
    try:
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except RepositoryError:
        return False
    return True


def tip(repository: Path, ref: str) -> str:
    """The ref's commit, '' if there is no such ref or no such repository."""
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except RepositoryError:
        return ""


def create(repository: Path, ref: str) -> None:
    """An empty bare repository that is ours. Whole or not at all."""
    repository.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{repository.name}.", dir=repository.parent))
    try:
        git(fresh, "init", "--quiet", "--bare", f"--initial-branch={ref.removeprefix('refs/heads/')}")
        for name, value in _SETTINGS.items():
            git(fresh, "config", name, value)
        fresh.rename(repository)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def take(repository: Path, pack: Path, commit: str) -> None:
    """Keep the pack for good; no ref points at it yet. Raises RepositoryError if it does not complete the commit."""
    git(repository, "index-pack", "--stdin", "--fix-thin", "--strict", feed=pack)
    _complete(repository, commit, {})
    git(repository, "gc", "--auto", "--quiet")


@contextmanager
def quarantine(repository: Path, pack: Path, commit: str) -> Iterator[dict[str, str]]:
    """The environment in which git sees the pack too, for as long as the block runs; the repository is as it was.

    The folder is where git itself puts objects of a push that is not accepted yet (git tmp-objdir.c), so that the
    daemon can read it, and `git gc` removes it should we not get to it.
    """
    objects = Path(git(repository, "rev-parse", "--absolute-git-dir")) / "objects"
    incoming = Path(tempfile.mkdtemp(prefix="tmp_objdir-incoming-", dir=objects))
    environment = {"GIT_OBJECT_DIRECTORY": str(incoming), "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}
    try:
        git(repository, "index-pack", "--stdin", "--fix-thin", "--strict", environment=environment, feed=pack)
        _complete(repository, commit, environment)
        yield environment
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _complete(repository: Path, commit: str, environment: Mapping[str, str]) -> None:
    git(repository, "rev-list", "--quiet", "--objects", commit, "--not", "--all", environment=environment)


@contextmanager
def following(repository: Path, ref: str, commit: str) -> Iterator[None]:
    """The ref is at the commit from here on; where the block fails it goes back to where it was."""
    before = tip(repository, ref)
    git(repository, "update-ref", "-m", "plumb_reconcile", ref, commit)
    try:
        yield
    except BaseException:
        back = ["update-ref", "-m", "plumb_reconcile: not applied"]
        git(repository, *back, ref, before) if before else git(repository, *back, "-d", ref)
        raise
