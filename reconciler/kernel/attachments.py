"""Which program each device runs at its hooks, as a table, over links; on kernels before 6.6, clsact filters for tc's.

Only what is ours is seen: a link by its pin, a filter by its name. Programs of others on the same hook stay where they
are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

from reconciler.bpf import syscalls
from reconciler.bpf.pins import PinnedProgram, pinned_programs
from reconciler.bpf.syscalls import held
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel.clsact import ClsactHooks
from reconciler.kernel.pinned_links import PinnedLinks
from reconciler.model.datapath import TC_HOOKS, XDP_HOOKS, AttachmentKey, AttachmentRow, Hook

_UNKNOWN = AttachmentRow("", "")


class Hooks(Protocol):
    """One way of attaching programs to devices."""

    def attached(self, only: Collection[AttachmentKey] | None = None) -> Iterator[tuple[AttachmentKey, int]]:
        """What is ours (among `only`), with the id of the program that runs there; 0 where nothing runs any more."""

    def key_of_link(self, number: int) -> AttachmentKey | None:
        """What a link of this id was for when it was last read; None if that was never."""

    def attach(self, key: AttachmentKey, program: int, name: str) -> None:
        """Run a program (a descriptor) from now on, without a packet between the old one and the new one."""

    def detach(self, key: AttachmentKey) -> None:
        """Idempotent."""


class AttachmentsTable:
    name = "attachments"
    after: tuple[str, ...] = ("links", "overlays", "programs", "prefilter")
    key_type: type = AttachmentKey
    row_type: type = AttachmentRow
    flip: Flip | None = None

    def __init__(self, root: Path, *, tcx: bool = True) -> None:
        """`root` as in bpf/pins.py; `tcx`: whether the kernel has TCX links."""
        self._root = root
        links = PinnedLinks(root, tuple(Hook) if tcx else XDP_HOOKS)
        self._ways: tuple[Hooks, ...] = (links,) if tcx else (ClsactHooks(), links)
        self._way_of = {hook: self._ways[0] if hook in TC_HOOKS else links for hook in Hook}

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """The digest is '' where the device, the link, the program's pin or its maps are not there any more."""
        ours = {program.id: program for program in pinned_programs(self._root)}
        asked = None if only is None else cast(Collection[AttachmentKey], only)
        found = (pair for way in self._ways for pair in way.attached(self._among(way, asked)))
        return DictRows({key: _row(ours.get(number)) for key, number in found})

    def _among(self, way: Hooks, keys: Collection[AttachmentKey] | None) -> Collection[AttachmentKey] | None:
        return None if keys is None else [key for key in keys if self._way_of[key.hook] is way]

    def guarded(self, ifnames: Collection[str]) -> frozenset[str]:
        """Those of the devices that run a program of ours, whole, on what comes and on what leaves."""
        keys = [AttachmentKey(ifname, hook) for ifname in ifnames for hook in TC_HOOKS]
        running = {key for key, row in self.live(keys).rows.items() if row.digest}
        return frozenset(name for name in ifnames if all(AttachmentKey(name, one) in running for one in TC_HOOKS))

    def key_of_link(self, number: int) -> AttachmentKey | None:
        """The row that a link of this id made, if it is known."""
        return next((key for way in self._ways if (key := way.key_of_link(number))), None)

    def write(self, upserts: Mapping[Key, AttachmentRow], deletes: Collection[Key]) -> None:
        """A row whose digest is '' (the way back to what was found broken) asks for nothing."""
        ours = {(program.name, program.digest): program for program in pinned_programs(self._root) if program.intact}
        for key, row in upserts.items():
            if not row.digest:
                continue
            program = ours.get((row.program, row.digest))
            if not program:
                raise KernelError(f"program {row.program} {row.digest} is not loaded")
            with held(syscalls.get(program.path)) as descriptor:
                self._way_of[key.hook].attach(cast(AttachmentKey, key), descriptor, f"{row.program}-{row.digest}")
        for key in deletes:
            self._way_of[key.hook].detach(cast(AttachmentKey, key))


def _row(program: PinnedProgram | None) -> AttachmentRow:
    if not program:
        return _UNKNOWN
    return AttachmentRow(program.name, program.digest if program.intact else "")
