"""What is pinned below a pin root: maps by name, programs by name and digest, and whether they belong together.

ROOT/maps/NAME               a map
ROOT/programs/NAME-DIGEST    a program; DIGEST covers its object file, options and sizes of maps
ROOT/links/IFNAME-HOOK       what attaches a program to a device
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.maps import MapInfo
from reconciler.bpf.programs import ProgramInfo
from reconciler.bpf.syscalls import held

OLD = "__old"  # ends the name of a pin that was replaced and is kept
_FRESH = "__new"
_PINS_KNOWN = 256
_INTERNAL = "."  # in names of maps that libbpf makes of data sections: they have no pin


@dataclass(frozen=True, slots=True)
class PinnedProgram:
    """`intact`: it reads the maps that are pinned now. `old`: it was replaced. `since_ns` is when it was pinned."""

    name: str
    digest: str
    path: str
    id: int
    intact: bool
    old: bool
    since_ns: int


def program_path(root: Path, name: str, digest: str) -> str:
    return str(root / "programs" / f"{name}-{digest}")


def map_ids(root: Path) -> Mapping[str, int]:
    """Name -> id of each pinned map; empty if nothing was ever loaded there."""
    listed = (entry for entry in _listing(root / "maps") if not entry.name.endswith((OLD, _FRESH)))
    return {entry.name: _map_at(entry.path, entry.inode()).id for entry in listed}


def pinned_programs(root: Path) -> list[PinnedProgram]:
    """All of them, the newest first; empty if nothing was ever loaded there. 0.1 ms once the pins are known."""
    known = frozenset(map_ids(root).values())
    listed = (entry for entry in _listing(root / "programs") if not entry.name.endswith(_FRESH))
    found = (_program(entry, known) for entry in listed)
    return sorted(found, key=lambda program: program.since_ns, reverse=True)


def _program(entry: os.DirEntry[str], known: frozenset[int]) -> PinnedProgram:
    about = _program_at(entry.path, entry.inode())
    name, _, digest = entry.name.removesuffix(OLD).rpartition("-")
    intact = all(_INTERNAL in _map_name(number) for number in about.maps - known)
    since_ns = _pinned_ns(entry.path, entry.inode())
    return PinnedProgram(name, digest, entry.path, about.id, intact, entry.name.endswith(OLD), since_ns)


# What is at a path stays the same for as long as the inode does: a pin that is replaced has another.


@lru_cache(maxsize=_PINS_KNOWN)
def _map_at(path: str, inode: int) -> MapInfo:
    with held(syscalls.get(path)) as descriptor:
        return maps.info(descriptor)


@lru_cache(maxsize=_PINS_KNOWN)
def _program_at(path: str, inode: int) -> ProgramInfo:
    with held(syscalls.get(path)) as descriptor:
        return programs.info(descriptor)


@lru_cache(maxsize=_PINS_KNOWN)
def _pinned_ns(path: str, inode: int) -> int:
    return os.stat(path).st_mtime_ns


@lru_cache(maxsize=_PINS_KNOWN)
def _map_name(number: int) -> str:
    with held(syscalls.by_id(syscalls.MAP_BY_ID, number, f"opening map {number}")) as descriptor:
        return maps.info(descriptor).name


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise syscalls.refusal(error.errno or 0, f"reading {folder}") from error
