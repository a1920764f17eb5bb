"""Which files of a tree are manifests, in a commit or in a plain directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from reconciler.errors import Fault, RepositoryError
from reconciler.model.snapshot import Warning
from reconciler.source.documents import MAX_BYTES
from reconciler.source.repository import LINK, SUBMODULE, TREE, Entry, Repository

SUFFIXES = (".yaml", ".yml", ".json")
_MAX_DIRECTORIES = 64  # levels; git itself has no limit
_SUBMODULE = "a submodule: nothing in it is read"
_LINKED = "a symbolic link: a manifest must be a file of its own"


@dataclass(frozen=True, slots=True)
class Listing:
    """`files`: path -> hex name of its content, in the order of paths."""

    files: dict[str, str]
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Warning] = field(default_factory=list)


def is_manifest(name: str) -> bool:
    return name.endswith(SUFFIXES)


def of_commit(repository: Repository, tree: str, known: dict[str, list[Entry]], *, hidden: bool = False) -> Listing:
    """Manifests of a commit's tree. Names that begin with a dot are left out unless `hidden`.

    `known`: trees that were read before, by hex name; afterwards those of this commit, and no others.
    """
    used: dict[str, list[Entry]] = {}
    listing = Listing({})
    pending = [("", tree)]
    while pending:
        path, name = pending.pop()
        entries = known.get(name) or repository.tree(name, path)
        used[name] = entries
        if path.count("/") > _MAX_DIRECTORIES:
            raise RepositoryError(f"{path} lies more than {_MAX_DIRECTORIES} directories deep")
        for entry in entries:
            if not hidden and entry.name.startswith("."):
                continue
            if entry.mode == TREE:
                pending.append((f"{path}{entry.name}/", entry.object))
            else:
                _take(path + entry.name, entry, listing)
    known.clear()
    known.update(used)
    return Listing(dict(sorted(listing.files.items())), listing.faults, listing.warnings)


def _take(path: str, entry: Entry, listing: Listing) -> None:
    if entry.mode == SUBMODULE:
        listing.warnings.append(Warning(path, 0, 0, _SUBMODULE))
    elif not is_manifest(entry.name):
        return
    elif entry.mode == LINK:
        listing.faults.append(Fault(path, 0, 0, _LINKED))
    else:
        listing.files[path] = entry.object


def of_directory(directory: Path, *, hidden: bool = False) -> tuple[Listing, dict[str, bytes | int]]:
    """The same of a plain directory, and hex name -> bytes, or size if that is above the limit, of each content."""
    listing = Listing({})
    contents: dict[str, bytes | int] = {}
    for path in sorted(_walk(directory, hidden=hidden)):
        relative = path.relative_to(directory).as_posix()
        if path.is_dir():
            listing.warnings.append(Warning(relative, 0, 0, _SUBMODULE))
            continue
        if path.is_symlink():
            listing.faults.append(Fault(relative, 0, 0, _LINKED))
            continue
        data = _read(path)
        name = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() if isinstance(data, bytes) else f"size-{data}"
        listing.files[relative] = name
        contents[name] = data
    return listing, contents


def _walk(directory: Path, *, hidden: bool) -> Iterator[Path]:
    """Manifests, and directories that are repositories of their own, as git would take them in: as submodules."""
    for top, directories, files in os.walk(directory, onerror=_raise):
        directories[:] = [name for name in directories if name != ".git" and (hidden or not name.startswith("."))]
        submodules = [path for name in directories if _is_repository(path := Path(top, name))]
        directories[:] = [name for name in directories if Path(top, name) not in submodules]
        yield from submodules
        for name in files:
            if is_manifest(name) and (hidden or not name.startswith(".")):
                yield Path(top, name)


def _is_repository(path: Path) -> bool:
    return not path.is_symlink() and (path / ".git").exists()


def _raise(error: OSError) -> None:
    raise RepositoryError(f"{error.filename}: {error.strerror}") from error


def _read(path: Path) -> bytes | int:
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise RepositoryError(f"{path} is not a file")
        return found.st_size if found.st_size > MAX_BYTES else path.read_bytes()
    except OSError as e:
        raise RepositoryError(f"{path}: {e.strerror}") from e
