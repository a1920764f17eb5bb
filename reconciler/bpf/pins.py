"""What is pinned below a pin root: maps by name, programs by name and digest, and whether they belong together.

ROOT/maps/NAME               a map
ROOT/programs/NAME-DIGEST    a program; DIGEST covers its object file, options and sizes of maps
ROOT/links/IFNAME-DIRECTION  what attaches a program to a device
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.syscalls import held

OLD = "__old"  # ends the name of a pin that was replaced and is kept
_FRESH = "__new"
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
    return {path.name: _map_id(path) for path in _listing(root / "maps") if not path.name.endswith((OLD, _FRESH))}


def pinned_programs(root: Path) -> list[PinnedProgram]:
    """All of them, the newest first; empty if nothing was ever loaded there."""
    known = map_ids(root)
    paths = (path for path in _listing(root / "programs") if not path.name.endswith(_FRESH))
    found = (_program(path, known) for path in paths)
    return sorted(found, key=lambda program: program.since_ns, reverse=True)


def _program(path: Path, known: Mapping[str, int]) -> PinnedProgram:
    with held(syscalls.get(str(path))) as descriptor:
        about = programs.info(descriptor)
    name, _, digest = path.name.removesuffix(OLD).rpartition("-")
    others = about.maps - set(known.values())
    intact = all(_INTERNAL in _map_name(number) for number in others)
    since_ns = path.stat().st_mtime_ns
    return PinnedProgram(name, digest, str(path), about.id, intact, path.name.endswith(OLD), since_ns)


def _map_id(path: Path) -> int:
    with held(syscalls.get(str(path))) as descriptor:
        return maps.info(descriptor).id


def _map_name(number: int) -> str:
    with held(syscalls.by_id(syscalls.MAP_BY_ID, number, f"opening map {number}")) as descriptor:
        return maps.info(descriptor).name


def _listing(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise syscalls.refusal(error.errno or 0, f"reading {folder}") from error
