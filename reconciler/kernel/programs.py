"""Loaded programs as a table: what is pinned, and whether it reads the maps that are pinned.

Ownership is the pin (bpf/pins.py). The program that another one replaced stays pinned beside it, so that the way back
needs neither its object file nor its options.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import cast

from reconciler.bpf import syscalls
from reconciler.bpf.pins import OLD, PinnedProgram, pinned_programs, program_path
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.model.datapath import ProgramRow

Load = Callable[[str, ProgramRow], None]


class ProgramsTable:
    name = "programs"
    after: tuple[str, ...] = ()
    key_type: type = str
    row_type: type = ProgramRow
    flip: Flip | None = None

    def __init__(self, root: Path, load: Load) -> None:
        """`load(name, row)` loads and pins that program below `root`, or raises KernelError."""
        self._root = root
        self._load = load

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """The digest is '' where the program reads maps that are not pinned (any more)."""
        rows: dict[Key, ProgramRow] = {}
        for program in pinned_programs(self._root):
            if not program.old and (only is None or program.name in only):
                rows.setdefault(program.name, ProgramRow(program.digest if program.intact else ""))
        return DictRows(rows)

    def write(self, upserts: Mapping[Key, ProgramRow], deletes: Collection[Key]) -> None:
        for key, row in upserts.items():
            self._put(cast(str, key), row)
        for program in pinned_programs(self._root):
            if program.name in deletes:
                syscalls.unpin(program.path)

    def _put(self, name: str, row: ProgramRow) -> None:
        """A row whose digest is '' (the way back to what was found broken) asks for nothing."""
        if not row.digest:
            return
        if not (wanted := self._find(name, row.digest)):
            self._load(name, row)
            wanted = self._find(name, row.digest)
        if not wanted:
            raise KernelError(f"program {name} {row.digest} was loaded and is not there")
        path = program_path(self._root, name, row.digest)
        if wanted.old:
            os.rename(wanted.path, path)
        self._retire(name, path)

    def _find(self, name: str, digest: str) -> PinnedProgram | None:
        """The same program, current or replaced, if it reads the pinned maps."""
        fitting = (one for one in pinned_programs(self._root) if (one.name, one.digest) == (name, digest))
        return next((one for one in fitting if one.intact), None)

    def _retire(self, name: str, current: str) -> None:
        """What was current until now becomes the replaced one, if it still could serve; no other is kept."""
        others = [one for one in pinned_programs(self._root) if one.name == name and one.path != current]
        retiring = [one for one in others if not one.old]
        if not retiring:
            return
        kept = next((one for one in retiring if one.intact), None)
        for one in others:
            if one is not kept:
                syscalls.unpin(one.path)
        if kept:
            os.rename(kept.path, kept.path + OLD)
