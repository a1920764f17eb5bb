"""A commit, or a plain directory, as a validated snapshot.

    revision -> commit -> tree -> files (by hash) -> manifests (by hash) -> snapshot
                              `tree`        `manifests`            `assembly`

A file that was read before, at any path and any commit, is not read again: what a cache holds is keyed by content
alone. With 1,000 policies and one of them changed a load takes about 10 ms.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reconciler.model.snapshot import Snapshot
from reconciler.source import manifests, tree
from reconciler.source.archive import Archive
from reconciler.source.assembly import assemble
from reconciler.source.documents import MAX_BYTES
from reconciler.source.manifests import Manifest
from reconciler.source.repository import QUARANTINE, Entry, Repository

_SPARE = 1_000  # manifests kept beyond those of the latest load
_SNAPSHOTS = 2  # a push is loaded before it is accepted and again afterwards


class Cache:
    """What files said when they were last read; optionally on disk too. Safe for several threads.

    Holds on to one `git cat-file` process for each repository until `close`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.files_read = 0  # parsed and checked, since this cache was made
        self._lock = threading.Lock()
        self._archive = Archive(directory) if directory is not None else None
        self._manifests: dict[str, Manifest] = {}  # least recently used first
        self._snapshots: dict[tuple[str, bool], Snapshot] = {}
        self._trees: dict[str, list[Entry]] = {}
        self._repositories: dict[Path, Repository] = {}

    def close(self) -> None:
        with self._lock:
            while self._repositories:
                self._repositories.popitem()[1].close()

    def commit(
        self, repository: str | Path, revision: str, environment: Mapping[str, str] | None, *, hidden: bool
    ) -> Snapshot:
        with self._lock, self._open(Path(repository), environment) as opened:
            name, root = opened.commit(revision)
            if (name, hidden) in self._snapshots:
                return self._snapshots[name, hidden]
            listing = tree.of_commit(opened, root, self._trees, hidden=hidden)
            snapshot = self._assembled(name, listing, lambda path: opened.file(listing.files[path], path, MAX_BYTES))
            self._snapshots[name, hidden] = snapshot
            while len(self._snapshots) > _SNAPSHOTS:
                del self._snapshots[next(iter(self._snapshots))]
            return snapshot

    def directory(self, path: Path, *, hidden: bool) -> Snapshot:
        with self._lock:
            listing, contents = tree.of_directory(path, hidden=hidden)
            return self._assembled("", listing, lambda path: contents[listing.files[path]])

    @contextmanager
    def _open(self, path: Path, environment: Mapping[str, str] | None) -> Iterator[Repository]:
        """A quarantine is opened for this once; a repository stays open until its directory is another one."""
        if environment and any(environment.get(name) for name in QUARANTINE):
            with Repository(path, environment) as once:
                yield once
            return
        opened = self._repositories.get(path)
        if opened is not None and not opened.is_current():
            self._repositories.pop(path).close()
            opened = None
        if opened is None:
            opened = self._repositories[path] = Repository(path)
        yield opened

    def _assembled(self, commit: str, listing: tree.Listing, read: Callable[[str], bytes | int]) -> Snapshot:
        keys = {path: _key(name, path) for path, name in listing.files.items()}
        self._recall(set(keys.values()))
        fresh: dict[str, Manifest] = {}
        for path, key in keys.items():
            if key not in self._manifests:
                fresh[key] = self._manifests[key] = _read(read(path), path)
        self.files_read += len(fresh)
        if fresh and self._archive is not None:
            self._archive.put(fresh)
        self._forget(len(keys))
        files = [(path, self._manifests[key]) for path, key in keys.items()]
        return assemble(commit, files, listing.faults, listing.warnings)

    def _recall(self, keys: set[str]) -> None:
        """Move what is wanted to the end of the line, from disk if need be."""
        for key in keys & self._manifests.keys():
            self._manifests[key] = self._manifests.pop(key)
        missing = keys - self._manifests.keys()
        if missing and self._archive is not None:
            self._manifests |= self._archive.get(missing)

    def _forget(self, wanted: int) -> None:
        for key in list(self._manifests)[: max(0, len(self._manifests) - wanted - _SPARE)]:
            del self._manifests[key]


def _key(name: str, path: str) -> str:
    return f"{name}.json" if path.endswith(".json") else name


def _read(data: bytes | int, path: str) -> Manifest:
    if isinstance(data, int):
        return manifests.oversized(data)
    return manifests.read(data, is_json=path.endswith(".json"))


def load(
    repository: str | Path,
    revision: str,
    cache: Cache,
    environment: Mapping[str, str] | None = None,
    *,
    hidden: bool = False,
) -> Snapshot:
    """The snapshot that a commit describes: all `*.yaml`, `*.yml` and `*.json` of its tree.

    Names that begin with a dot are left out unless `hidden`. `environment` is that of a `pre-receive` hook: the
    objects of a push lie in quarantine until it is accepted. Raises ManifestError, as `assemble` does, and
    RepositoryError.
    """
    return cache.commit(repository, revision, environment, hidden=hidden)


def load_directory(path: str | Path, cache: Cache | None = None, *, hidden: bool = False) -> Snapshot:
    """The same of a plain directory; its commit is ''."""
    return (cache or Cache()).directory(Path(path), hidden=hidden)
