"""What git cannot give becomes an error that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import RepositoryError
from reconciler.source.loading import Cache, load
from reconciler.source.repository import resolve

from .policy_repository import CLUSTER, commit, git, make


def broken(repository: Path, name: str) -> Path:
    return repository / ".git" / "objects" / name[:2] / name[2:]


def refusal(repository: Path, revision: str) -> RepositoryError:
    cache = Cache()
    try:
        with pytest.raises(RepositoryError) as raised:
            load(repository, revision, cache)
    finally:
        cache.close()
    assert raised.value.remedy
    return raised.value


def test_a_revision_is_resolved_to_its_full_name(tmp_path: Path) -> None:
    name = make(tmp_path, {"cluster.yaml": CLUSTER})
    git(tmp_path, "tag", "-a", "v1", "-m", "x")
    assert {resolve(tmp_path, revision) for revision in ("main", "HEAD", "v1", name[:8], "refs/heads/main")} == {name}


def test_a_directory_without_a_repository(tmp_path: Path) -> None:
    assert "is not a git repository" in str(refusal(tmp_path, "HEAD"))
    assert "is not a git repository" in str(refusal(tmp_path / "nowhere", "HEAD"))


def test_a_commit_that_is_not_there(tmp_path: Path) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    assert f"commit {'0' * 40} is not in" in str(refusal(tmp_path, "0" * 40))


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert "commit HEAD is not in" in str(refusal(tmp_path, "HEAD"))


def test_a_revision_that_names_no_commit(tmp_path: Path) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    assert "commit HEAD:cluster.yaml is not in" in str(refusal(tmp_path, "HEAD:cluster.yaml"))


@pytest.mark.parametrize("revision", ["", "-x", "a b", "main\nHEAD", "a\0"])
def test_what_is_no_revision_never_reaches_git(tmp_path: Path, revision: str) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    with pytest.raises(RepositoryError, match="is not a revision"):
        resolve(tmp_path, revision)


def test_a_broken_object_is_named_with_its_path(tmp_path: Path) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    blob = git(tmp_path, "rev-parse", "HEAD:cluster.yaml")
    path = broken(tmp_path, blob)
    path.chmod(0o644)
    path.write_bytes(b"garbage")
    error = refusal(tmp_path, "HEAD")
    assert str(error).startswith(f"cluster.yaml (object {blob}) is broken")
    assert "git fsck" in error.remedy


def test_an_object_under_another_name_is_broken(tmp_path: Path) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, "other.yaml": "x"})
    blob, other = (git(tmp_path, "rev-parse", f"HEAD:{name}") for name in ("cluster.yaml", "other.yaml"))
    broken(tmp_path, blob).chmod(0o644)
    broken(tmp_path, blob).write_bytes(broken(tmp_path, other).read_bytes())
    assert f"cluster.yaml (object {blob})" in str(refusal(tmp_path, "HEAD"))


def test_a_missing_object_is_named_with_its_path(tmp_path: Path) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    blob = git(tmp_path, "rev-parse", "HEAD:cluster.yaml")
    broken(tmp_path, blob).unlink()
    assert f"cluster.yaml (object {blob}) is not in" in str(refusal(tmp_path, "HEAD"))


def test_a_repository_recovers_once_the_object_is_back(tmp_path: Path) -> None:
    name = make(tmp_path, {"cluster.yaml": CLUSTER})
    path = broken(tmp_path, git(tmp_path, "rev-parse", "HEAD:cluster.yaml"))
    kept = path.read_bytes()
    path.unlink()
    cache = Cache()
    with pytest.raises(RepositoryError):
        load(tmp_path, "HEAD", cache)
    path.write_bytes(kept)
    assert load(tmp_path, "HEAD", cache).commit == name
    cache.close()


def test_a_shallow_clone_says_how_to_get_the_rest(tmp_path: Path) -> None:
    first = make(tmp_path / "r", {"cluster.yaml": CLUSTER})
    commit(tmp_path / "r", {"x": "x"})
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tmp_path}/r", "shallow")
    assert "fetch --unshallow" in refusal(tmp_path / "shallow", first).remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to give a repository to another user")
def test_a_repository_of_another_user_says_how_to_trust_it(tmp_path: Path) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    for path in (tmp_path, tmp_path / ".git"):
        os.chown(path, 12345, 12345)
    error = refusal(tmp_path, "HEAD")
    assert "belongs to another user" in str(error)
    assert "safe.directory" in error.remedy


def test_a_replaced_object_does_not_count(tmp_path: Path) -> None:
    """git replace would show other content under the name of a commit that was reviewed."""
    name = make(tmp_path, {"cluster.yaml": CLUSTER})
    other = commit(tmp_path, {"cluster.yaml": CLUSTER.replace("demo", "evil")})
    git(tmp_path, "replace", name, other)
    cache = Cache()
    assert load(tmp_path, name, cache).cluster.name == "demo"
    cache.close()
