"""Programs on devices by TCX links (kernel 6.6): a pinned link outlives us, and its program is replaced in place.

Ownership is the pin, ROOT/links/IFNAME-ingress or -egress. A link whose device is gone stays pinned, and shows.
Source: linux/bpf.h (BPF_TCX_INGRESS), kernel kernel/bpf/tcx.c.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from reconciler.bpf import programs, syscalls
from reconciler.bpf.bpffs import escaped, unescaped
from reconciler.bpf.grace import hurried
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
        self._keys: dict[int, AttachmentKey] = {}

    def attached(self, only: Collection[AttachmentKey] | None = None) -> Iterator[tuple[AttachmentKey, int]]:
        """A link that is on another device than its name says, or on none, counts as running nothing."""
        seen: dict[int, AttachmentKey] = {}
        for key in only if only is not None else filter(None, map(key_of_pin, self._names())):
            try:
                descriptor = syscalls.get(self._path(key))
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue
            with held(descriptor) as link:
                about = programs.link_info(link)
            seen[about.id] = key
            yield key, about.program if _is_on(about, key) else 0
        if only is None:
            self._keys = seen

    def key_of_link(self, number: int) -> AttachmentKey | None:
        """What a link is pinned for, by its id, as it was when it was last read."""
        return self._keys.get(number)

    def attach(self, key: AttachmentKey, program: int, name: str) -> None:
        """A link that only lost its pin is pinned again; one that left its hook can never come back to it."""
        path, number = self._path(key), programs.info(program).id
        if os.path.lexists(path):
            with held(syscalls.get(path)) as link:
                about = programs.link_info(link)
                if _is_on(about, key):
                    if about.program != number:
                        programs.replace_program(link, program)
                    return
        ifindex, hook = _ifindex(key.ifname), _HOOKS[key.direction]
        if not ifindex:
            raise KernelError(f"no device {key.ifname} to run {name} on")
        lost = _without_pin(number, ifindex, hook)
        with held(_link(program, ifindex, hook) if lost is None else lost) as link:
            syscalls.pin(link, path)
            self._keys[programs.link_info(link).id] = key

    def detach(self, key: AttachmentKey) -> None:
        """The link leaves its hook even if somebody else holds it too."""
        path = self._path(key)
        if not os.path.lexists(path):
            return
        with held(syscalls.get(path)) as link:
            if programs.link_info(link).ifindex:
                with hurried():
                    programs.detach(link)
        syscalls.unpin(path)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []

    def _path(self, key: AttachmentKey) -> str:
        return str(self._folder / f"{escaped(key.ifname)}-{key.direction.name.lower()}")


def key_of_pin(name: str) -> AttachmentKey | None:
    """None for a name that is none of ours."""
    ifname, _, direction = name.rpartition("-")
    return AttachmentKey(unescaped(ifname), _NAMES[direction]) if direction in _NAMES else None


def _without_pin(program: int, ifindex: int, hook: int) -> int | None:
    """The link of this program on a hook: it lives on for a grace period after its pin was removed."""
    for attached in programs.attached_tcx(ifindex, hook):
        if attached.program == program and attached.link:
            try:
                return syscalls.by_id(syscalls.LINK_BY_ID, attached.link, f"opening link {attached.link}")
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
    return None


def _link(program: int, ifindex: int, hook: int) -> int:
    """A new link. A hook takes a program once, and a link that nobody holds any more is on it for some milliseconds."""
    deadline = time.monotonic() + _RELEASE_S
    while True:
        try:
            with hurried():
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
