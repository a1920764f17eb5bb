"""Which program each workload's device runs, as a table, over TCX links or, on kernels before 6.6, clsact filters.

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
from reconciler.kernel.tcx import TcxHooks
from reconciler.model.datapath import AttachmentKey, AttachmentRow, Hook

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
    after: tuple[str, ...] = ("links", "overlays", "programs")
    key_type: type = AttachmentKey
    row_type: type = AttachmentRow
    flip: Flip | None = None

    def __init__(self, root: Path, *, tcx: bool = True) -> None:
        """`root` as in bpf/pins.py; `tcx`: whether the kernel has TCX links."""
        self._root = root
        self._hooks: Hooks = TcxHooks(root) if tcx else ClsactHooks()

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """The digest is '' where the device, the link, the program's pin or its maps are not there any more."""
        ours = {program.id: program for program in pinned_programs(self._root)}
        asked = None if only is None else cast(Collection[AttachmentKey], only)
        return DictRows({key: _row(ours.get(number)) for key, number in self._hooks.attached(asked)})

    def guarded(self, ifnames: Collection[str]) -> frozenset[str]:
        """Those of the devices that run a program of ours, whole, in each direction."""
        keys = [AttachmentKey(ifname, hook) for ifname in ifnames for hook in Hook]
        running = {key for key, row in self.live(keys).rows.items() if row.digest}
        return frozenset(name for name in ifnames if all(AttachmentKey(name, one) in running for one in Hook))

    def key_of_link(self, number: int) -> AttachmentKey | None:
        """The row that a link of this id made, if it is known."""
        return self._hooks.key_of_link(number)

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
                self._hooks.attach(cast(AttachmentKey, key), descriptor, f"{row.program}-{row.digest}")
        for key in deletes:
            self._hooks.detach(cast(AttachmentKey, key))


def _row(program: PinnedProgram | None) -> AttachmentRow:
    if not program:
        return _UNKNOWN
    return AttachmentRow(program.name, program.digest if program.intact else "")
