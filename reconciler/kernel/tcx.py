"""Programs on devices by TCX links (kernel 6.6): a pinned link outlives us, and its program is replaced in place.

Ownership is the pin, ROOT/links/IFNAME-ingress or -egress. A link whose device is gone stays pinned, and shows.
Source: linux/bpf.h (BPF_TCX_INGRESS), kernel kernel/bpf/tcx.c.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from reconciler.bpf import programs, syscalls
from reconciler.bpf.bpffs import escaped, unescaped
from reconciler.bpf.programs import LINK_TCX, TCX_EGRESS, TCX_INGRESS, LinkInfo
from reconciler.bpf.syscalls import held
from reconciler.errors import KernelError
from reconciler.model.datapath import AttachmentKey, Direction

_HOOKS = {Direction.INGRESS: TCX_INGRESS, Direction.EGRESS: TCX_EGRESS}
_RELEASE_S, _POLL_S = 1.0, 0.0005
_NAMES = {direction.name.lower(): direction for direction in Direction}


class TcxHooks:
    def __init__(self, root: Path) -> None:
        self._folder = root / "links"

    def attached(self) -> Iterator[tuple[AttachmentKey, int]]:
        """A link that is on another device than its name says, or on none, counts as running nothing."""
        for name in self._names():
            ifname, _, direction = name.rpartition("-")
            if direction not in _NAMES:
                continue
            key = AttachmentKey(unescaped(ifname), _NAMES[direction])
            with held(syscalls.get(str(self._folder / name))) as link:
                about = programs.link_info(link)
            yield key, about.program if _is_on(about, key) else 0

    def attach(self, key: AttachmentKey, program: int, name: str) -> None:
        path = self._path(key)
        if os.path.lexists(path):
            with held(syscalls.get(path)) as link:
                about = programs.link_info(link)
                if _is_on(about, key):
                    if about.program != programs.info(program).id:
                        programs.replace_program(link, program)
                    return
            syscalls.unpin(path)
        ifindex = _ifindex(key.ifname)
        if not ifindex:
            raise KernelError(f"no device {key.ifname} to run {name} on")
        with held(_link(program, ifindex, _HOOKS[key.direction])) as link:
            syscalls.pin(link, path)

    def detach(self, key: AttachmentKey) -> None:
        """The link leaves its hook even if somebody else holds it too."""
        path = self._path(key)
        if not os.path.lexists(path):
            return
        with held(syscalls.get(path)) as link:
            if programs.link_info(link).ifindex:
                programs.detach(link)
        syscalls.unpin(path)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []

    def _path(self, key: AttachmentKey) -> str:
        return str(self._folder / f"{escaped(key.ifname)}-{key.direction.name.lower()}")


def _link(program: int, ifindex: int, hook: int) -> int:
    """A new link. A hook takes a program once, and a link whose pin was removed is on it for some milliseconds more."""
    deadline = time.monotonic() + _RELEASE_S
    while True:
        try:
            return programs.attach_tcx(program, ifindex, hook)
        except KernelError as error:
            if error.errno != errno.EEXIST or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _is_on(about: LinkInfo, key: AttachmentKey) -> bool:
    """Whether the link is on the device and hook that its pin speaks of; a detached one has device 0."""
    wanted = LINK_TCX, _HOOKS[key.direction], _ifindex(key.ifname)
    return about.ifindex != 0 and (about.kind, about.attach_type, about.ifindex) == wanted


def _ifindex(ifname: str) -> int:
    """0 if there is no such device."""
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        return 0
