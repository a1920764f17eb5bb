"""The policy repository that a lab follows: where it is, which branch, and whom its hooks ask."""

from __future__ import annotations

import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import RepositoryError
from reconciler.model.snapshot import Snapshot
from reconciler.source.loading import Cache, load

_MAKE_ONE = "make a policy repository: plumb init DIRECTORY"
_SOCKET_KEY = "plumb.socket"  # read by the hooks of `plumb init --bare`


@dataclass(frozen=True, slots=True)
class Followed:
    """`repository` is absolute; `ref` is the branch that its HEAD names."""

    repository: Path
    ref: str

    def load(self) -> Snapshot:
        """The newest commit. Raises RepositoryError when there is none, ManifestError."""
        with closing(Cache()) as cache:
            return load(self.repository, self.ref, cache)


def follow(path: Path) -> Followed:
    """Raises RepositoryError when it is no repository or only a part of one, or its HEAD is on no branch."""
    bare = _git(path, "rev-parse", "--is-bare-repository") == "true"
    repository = Path(_git(path, "rev-parse", "--absolute-git-dir" if bare else "--show-toplevel"))
    if not repository.samefile(path):
        raise RepositoryError(f"{path} is inside the repository {repository}, not one itself", remedy=_MAKE_ONE)
    return Followed(repository.resolve(), _git(path, "symbolic-ref", "HEAD"))


def set_socket(repository: Path, socket: Path) -> None:
    """From now on a push is answered by the daemon that listens there."""
    _git(repository, "config", _SOCKET_KEY, str(socket))


def clear_socket(repository: Path) -> None:
    """Pushes are answered by the command again; a repository that is gone, or has no such setting, is success."""
    subprocess.run(
        ["git", "-C", str(repository), "config", "--unset-all", _SOCKET_KEY], capture_output=True, check=False
    )


def _git(path: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        said = " ".join(result.stderr.split()).removeprefix("fatal: ")
        raise RepositoryError(f"{path}: {said}", remedy=_MAKE_ONE)
    return result.stdout.strip()
