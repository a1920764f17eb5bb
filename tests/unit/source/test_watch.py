"""A watched ref: every way that git moves it is told once, and a replaced directory is followed."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import RepositoryError
from reconciler.source.watch import RefWatcher, current

from .policy_repository import commit, git, make

DEADLINE_S = 10.0
MAIN = "refs/heads/main"


class Told:
    """What a watcher told, in order."""

    def __init__(self) -> None:
        self._commits: queue.Queue[str] = queue.Queue()

    def __call__(self, commit: str) -> None:
        self._commits.put(commit)

    def next(self) -> str:
        return self._commits.get(timeout=DEADLINE_S)

    def next_commit(self) -> str:
        """Passes over that there is none for a moment."""
        while not (commit := self.next()):
            pass
        return commit

    def nothing_more(self) -> bool:
        return self._commits.empty()


Watch = Callable[..., Told]


@pytest.fixture
def watch() -> Iterator[Watch]:
    watchers: list[RefWatcher] = []

    def start(repository: Path, ref: str = MAIN) -> Told:
        told = Told()
        watchers.append(RefWatcher(repository, ref, told))
        watchers[-1].start()
        return told

    before = threading.active_count()
    yield start
    for watcher in watchers:
        watcher.stop()
    assert threading.active_count() == before


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make(tmp_path / "work" / "r", {"a": "1"})
    return tmp_path / "work" / "r"


@pytest.fixture
def bare(repository: Path, tmp_path: Path) -> Path:
    git(repository, "clone", "--quiet", "--bare", ".", str(tmp_path / "bare" / "r.git"))
    git(repository, "remote", "add", "origin", str(tmp_path / "bare" / "r.git"))
    return tmp_path / "bare" / "r.git"


def test_a_commit_is_told_once(repository: Path, watch: Watch) -> None:
    told = watch(repository)
    first, second = commit(repository, {"a": "2"}), commit(repository, {"a": "3"})
    heard = [told.next()]
    while heard[-1] != second:
        heard.append(told.next())
    assert heard in ([first, second], [second])
    assert told.nothing_more()


def test_a_push_into_a_bare_repository_is_told(repository: Path, bare: Path, watch: Watch) -> None:
    told = watch(bare)
    name = commit(repository, {"a": "2"})
    git(repository, "push", "--quiet", "origin", "main")
    assert told.next() == name


def test_a_ref_that_goes_back_is_told(repository: Path, watch: Watch) -> None:
    first = git(repository, "rev-parse", "HEAD")
    commit(repository, {"a": "2"})
    told = watch(repository)
    git(repository, "reset", "--quiet", "--hard", first)
    assert told.next() == first


def test_a_repository_that_is_moved_away_and_back_is_told(repository: Path, watch: Watch) -> None:
    name = git(repository, "rev-parse", "HEAD")
    told = watch(repository)
    repository.rename(repository.with_name("away"))
    assert told.next() == ""
    repository.with_name("away").rename(repository)
    assert told.next() == name


def test_a_ref_that_is_packed_is_not_told_and_still_followed(repository: Path, watch: Watch) -> None:
    told = watch(repository)
    git(repository, "pack-refs", "--all")
    name = commit(repository, {"a": "2"})
    assert told.next() == name
    assert told.nothing_more()


def test_a_change_of_packed_refs_alone_is_told(repository: Path, watch: Watch) -> None:
    old, new = git(repository, "rev-parse", "HEAD"), commit(repository, {"a": "2"})
    git(repository, "pack-refs", "--all")
    told = watch(repository)
    packed = repository / ".git" / "packed-refs"
    lock = packed.with_name("packed-refs.lock")  # as git does it: at once
    lock.write_text(packed.read_text().replace(new, old))
    lock.rename(packed)
    assert told.next() == old


def test_another_branch_is_not_told(repository: Path, watch: Watch) -> None:
    told = watch(repository)
    git(repository, "branch", "other")
    git(repository, "commit-tree", "HEAD^{tree}", "-m", "x")
    name = commit(repository, {"a": "2"})
    assert told.next() == name


def test_head_follows_the_branch_that_is_checked_out(repository: Path, watch: Watch) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "branch", "other")
    commit(repository, {"a": "2"})
    told = watch(repository, "HEAD")
    git(repository, "checkout", "--quiet", "other")
    assert told.next() == first


def test_a_branch_in_a_new_directory_is_told(repository: Path, watch: Watch) -> None:
    told = watch(repository, "refs/heads/team/main")
    git(repository, "branch", "team/main")
    assert told.next() == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("removed_first", [True, False])
def test_a_bare_repository_that_is_replaced_is_followed(
    repository: Path, bare: Path, watch: Watch, removed_first: bool
) -> None:
    told = watch(bare)
    name = commit(repository, {"a": "2"})
    git(repository, "clone", "--quiet", "--bare", ".", str(bare.with_name("new.git")))
    if removed_first:
        shutil.rmtree(bare)
    else:
        bare.rename(bare.with_name("old.git"))
    bare.with_name("new.git").rename(bare)
    assert told.next_commit() == name
    name = commit(repository, {"a": "3"})
    git(repository, "push", "--quiet", "origin", "main")
    assert told.next_commit() == name


def test_a_work_tree_that_is_cloned_again_is_followed(repository: Path, bare: Path, watch: Watch) -> None:
    told = watch(repository)
    other = repository.with_name("other")
    git(bare.parent, "clone", "--quiet", str(bare), str(other))
    name = commit(other, {"a": "2"})
    git(other, "push", "--quiet", "origin", "main")
    shutil.rmtree(repository)
    git(bare.parent, "clone", "--quiet", str(bare), str(repository))
    assert told.next_commit() == name
    assert commit(repository, {"a": "3"}) == told.next_commit()


def test_a_repository_that_appears_later_is_followed(tmp_path: Path, watch: Watch) -> None:
    told = watch(tmp_path / "r")
    assert make(tmp_path / "r", {"a": "1"}) == told.next()


def test_a_callback_that_fails_does_not_end_the_watch(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = Told()

    def fail(commit: str) -> None:
        told(commit)
        raise ValueError("refused")

    watcher = RefWatcher(repository, MAIN, fail)
    watcher.start()
    for text in ("2", "3"):
        name = commit(repository, {"a": text})
        assert told.next() == name
    watcher.stop()
    assert "ref not followed" in caplog.text


def test_nothing_to_watch_is_an_error(tmp_path: Path) -> None:
    watcher = RefWatcher(tmp_path / "nowhere" / "r", MAIN, Told())
    with pytest.raises(RepositoryError, match="cannot be watched"):
        watcher.start()
    watcher.stop()


def test_what_a_ref_holds_now(repository: Path, tmp_path: Path) -> None:
    assert current(repository, "HEAD") == current(repository, MAIN) == git(repository, "rev-parse", "HEAD")
    assert current(repository, "refs/heads/none") is None
    assert current(tmp_path / "nowhere", MAIN) is None
