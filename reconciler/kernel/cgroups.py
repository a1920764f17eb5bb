"""Which programs the sockets of a cgroup meet, as a table, over links that stay pinned when we are gone.

Ownership is the pin, ROOT/links/CGROUP-HOOK. A link whose cgroup is gone stays pinned, and shows; one that lost its pin
is gone with it. Programs of others on the same cgroup stay where they are.
Source: linux/bpf.h (enum bpf_attach_type), kernel kernel/bpf/cgroup.c; the id of a cgroup is its directory's inode.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import cast

from reconciler.bpf import programs, syscalls
from reconciler.bpf.bpffs import escaped, unescaped
from reconciler.bpf.pins import PinnedProgram, pinned_programs
from reconciler.bpf.programs import LINK_CGROUP, CgroupLinkInfo
from reconciler.bpf.syscalls import held
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.model.datapath import AttachmentRow, CgroupKey, SocketHook

ATTACH_TYPES = {
    SocketHook.CONNECT4: 10,
    SocketHook.CONNECT6: 11,
    SocketHook.SENDMSG4: 14,
    SocketHook.SENDMSG6: 15,
    SocketHook.RECVMSG4: 19,
    SocketHook.RECVMSG6: 20,
    SocketHook.GETPEERNAME4: 29,
    SocketHook.GETPEERNAME6: 30,
}
_HOOKS = frozenset(SocketHook)
_UNKNOWN = AttachmentRow("", "")
_MOUNTS = "/proc/self/mountinfo"


class CgroupsTable:
    name = "cgroups"
    after: tuple[str, ...] = ("programs",)
    key_type: type = CgroupKey
    row_type: type = AttachmentRow
    flip: Flip | None = None

    def __init__(self, root: Path) -> None:
        """`root` as in bpf/pins.py."""
        self._root = root
        self._folder = root / "links"
        self._keys: dict[int, CgroupKey] = {}

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """The digest is '' where the cgroup, the program's pin or its maps are not there any more."""
        ours = {program.id: program for program in pinned_programs(self._root)}
        every = list(self._pinned()) if only is None else list(cast(Collection[CgroupKey], only))
        rows, seen = {}, {}
        for key in every:
            if (about := self._about(key)) is not None:
                rows[key] = _row(ours.get(about.program)) if _is_on(about, key) else _UNKNOWN
                seen[about.id] = key
        self._keys = seen if only is None else self._keys | seen
        return DictRows(rows)

    def key_of_link(self, number: int) -> CgroupKey | None:
        """What a link of this id was for when it was last read; None if that was never."""
        return self._keys.get(number)

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
                self._attach(cast(CgroupKey, key), descriptor)
        for key in deletes:
            self._detach(cast(CgroupKey, key))

    def _attach(self, key: CgroupKey, program: int) -> None:
        """In place, if there is a link already: no connection is made without the one program or the other."""
        about = self._about(key)
        if about is not None and _is_on(about, key):
            if about.program != programs.info(program).id:
                with held(syscalls.get(self._path(key))) as link:
                    programs.replace_program(link, program)
            return
        with (
            held(_open(key.cgroup)) as directory,
            held(programs.attach_cgroup(program, directory, ATTACH_TYPES[key.hook])) as fresh,
        ):
            syscalls.pin(fresh, self._path(key))

    def _detach(self, key: CgroupKey) -> None:
        """The link leaves its hook even if somebody else holds it too."""
        about = self._about(key)
        if about is not None and about.kind == LINK_CGROUP and about.cgroup:
            with held(syscalls.get(self._path(key))) as link:
                programs.detach(link)
        syscalls.unpin(self._path(key))

    def _about(self, key: CgroupKey) -> CgroupLinkInfo | None:
        """What is pinned for a row now; None if nothing is."""
        try:
            with held(syscalls.get(self._path(key))) as link:
                return programs.cgroup_link_info(link)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def _pinned(self) -> Iterator[CgroupKey]:
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return
        yield from (key for name in names if (key := key_of_pin(name)))

    def _path(self, key: CgroupKey) -> str:
        return str(self._folder / f"{escaped(key.cgroup)}-{key.hook}")


def key_of_pin(name: str) -> CgroupKey | None:
    """None for a name that is none of ours."""
    cgroup, _, hook = name.rpartition("-")
    return CgroupKey(unescaped(cgroup), SocketHook(hook)) if hook in _HOOKS else None


def cgroup_mount() -> Path:
    """Where the cgroup2 file system is. Raises KernelError if it is mounted nowhere."""
    for line in Path(_MOUNTS).read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise KernelError("no cgroup2 file system is mounted", remedy="mount -t cgroup2 none /sys/fs/cgroup")


def is_cgroup(cgroup: str) -> bool:
    """Whether it is there. Raises KernelError without a cgroup2 file system."""
    return _inode(cgroup) != 0


def _open(cgroup: str) -> int:
    try:
        return os.open(cgroup_mount() / cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"no cgroup {cgroup or '/'}: {error.strerror}", errno=error.errno or 0) from error


def _inode(cgroup: str) -> int:
    """0 if there is no such cgroup."""
    try:
        return os.stat(cgroup_mount() / cgroup).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_on(about: CgroupLinkInfo, key: CgroupKey) -> bool:
    """Whether the link is on the cgroup and hook that its pin speaks of: one made anew under its path is another."""
    wanted = LINK_CGROUP, ATTACH_TYPES[key.hook], _inode(key.cgroup)
    return about.cgroup != 0 and (about.kind, about.attach_type, about.cgroup) == wanted


def _row(program: PinnedProgram | None) -> AttachmentRow:
    if not program:
        return _UNKNOWN
    return AttachmentRow(program.name, program.digest if program.intact else "")
