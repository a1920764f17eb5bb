"""Programs on devices by links, TCX (kernel 6.6) or XDP (5.9): a pinned link outlives us, and its program is replaced
in place.

Ownership is the pin, ROOT/links/IFNAME-HOOK. A link whose device is gone stays pinned, and shows. A link that nobody
holds leaves its hook as soon as its pin is removed, so a process that lives on holds those it has seen.
Source: linux/bpf.h (BPF_TCX_INGRESS, BPF_XDP), kernel kernel/bpf/tcx.c, net/core/dev.c.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from reconciler.bpf import programs, syscalls
from reconciler.bpf.bpffs import escaped, unescaped
from reconciler.bpf.grace import hurried
from reconciler.bpf.programs import LINK_TCX, LINK_XDP, TCX_EGRESS, TCX_INGRESS, XDP_DEVICE, LinkInfo
from reconciler.bpf.syscalls import held
from reconciler.errors import KernelError
from reconciler.kernel import xdp
from reconciler.model.datapath import XDP_HOOKS, AttachmentKey, Hook

_KINDS = {  # of link, and of what it is attached to
    Hook.INGRESS: (LINK_TCX, TCX_INGRESS),
    Hook.EGRESS: (LINK_TCX, TCX_EGRESS),
    **dict.fromkeys(XDP_HOOKS, (LINK_XDP, XDP_DEVICE)),
}
_SHARES = 4  # of the files that may be open; one is for the links that are held
_RELEASE_S, _POLL_S = 1.0, 0.0005
_NAMES = {hook.name.lower(): hook for hook in Hook}


class _Held:
    """A link kept open: one that loses its pin stays on its hook. `inode` is the pin's; closed when nobody holds it."""

    def __init__(self, descriptor: int, inode: int) -> None:
        self.descriptor = descriptor
        self.inode = inode
        self.number = programs.link_info(descriptor).id

    def __del__(self) -> None:
        os.close(self.descriptor)


class PinnedLinks:
    """Of these hooks. Holds the links that it has seen, up to a quarter of the files that may be open."""

    def __init__(self, root: Path, hooks: Collection[Hook]) -> None:
        self._folder = root / "links"
        self._hooks = frozenset(hooks)
        self._held: dict[AttachmentKey, _Held] = {}
        self._keys: dict[int, AttachmentKey] = {}

    def attached(self, only: Collection[AttachmentKey] | None = None) -> Iterator[tuple[AttachmentKey, int]]:
        """A link that is on another device than its name says, on none, or without a pin, counts as running nothing."""
        seen: dict[int, AttachmentKey] = {}
        for key in self._every() if only is None else only:
            if (link := self._open(key)) is not None:
                seen[link.number] = key
                about = programs.link_info(link.descriptor)
                yield key, about.program if _is_on(about, key) else 0
            elif self._lost(key) is not None:
                yield key, 0
        if only is None:
            self._keys = seen

    def key_of_link(self, number: int) -> AttachmentKey | None:
        """What a link is pinned for, by its id, as it was when it was last read."""
        return self._keys.get(number)

    def attach(self, key: AttachmentKey, program: int, name: str) -> None:
        """A link that only lost its pin is pinned again; one that left its hook can never come back to it."""
        link = self._open(key) or self._lost(key)
        if link is not None and _is_on(about := programs.link_info(link.descriptor), key):
            if about.program != programs.info(program).id:
                programs.replace_program(link.descriptor, program)
            if not os.path.lexists(self._path(key)):
                syscalls.pin(link.descriptor, self._path(key))
            return
        ifindex = _ifindex(key.ifname)
        if not ifindex:
            raise KernelError(f"no device {key.ifname} to run {name} on")
        for other in _in_the_way(key):
            self.detach(other)
        with held(_link(program, key, ifindex)) as fresh:
            syscalls.pin(fresh, self._path(key))
        self._open(key)

    def detach(self, key: AttachmentKey) -> None:
        """The link leaves its hook even if somebody else holds it too."""
        link = self._open(key) or self._lost(key)
        if link is None:
            return
        if programs.link_info(link.descriptor).ifindex:
            with hurried():
                programs.detach(link.descriptor)
        syscalls.unpin(self._path(key))
        self._held.pop(key, None)
        self._keys.pop(link.number, None)

    def _open(self, key: AttachmentKey) -> _Held | None:
        """What is pinned for a row now; None if nothing is."""
        path = self._path(key)
        try:
            inode, link = os.stat(path).st_ino, self._held.get(key)
            if link is None or link.inode != inode:
                link = _Held(syscalls.get(path), inode)
        except (FileNotFoundError, KernelError) as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        if key in self._held or len(self._held) < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARES:
            self._held[key] = link
        self._keys[link.number] = key
        return link

    def _lost(self, key: AttachmentKey) -> _Held | None:
        """What was pinned for a row, has no pin and is on its hook all the same."""
        link = self._held.get(key)
        if link is not None and not _is_on(programs.link_info(link.descriptor), key):
            del self._held[key]
            return None
        return link

    def _every(self) -> list[AttachmentKey]:
        """What is pinned, and what is held without a pin."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            names = []
        pinned = (key for name in names if (key := key_of_pin(name)) and key.hook in self._hooks)
        return list(dict.fromkeys((*pinned, *self._held)))

    def _path(self, key: AttachmentKey) -> str:
        return str(self._folder / f"{escaped(key.ifname)}-{key.hook.name.lower()}")


def key_of_pin(name: str) -> AttachmentKey | None:
    """None for a name that is none of ours."""
    ifname, _, hook = name.rpartition("-")
    return AttachmentKey(unescaped(ifname), _NAMES[hook]) if hook in _NAMES else None


def _in_the_way(key: AttachmentKey) -> Iterator[AttachmentKey]:
    """Rows that ask for the same place in another way; it is theirs until they are gone."""
    if key.hook in XDP_HOOKS:
        yield from (AttachmentKey(key.ifname, hook) for hook in XDP_HOOKS if hook is not key.hook)


def _link(program: int, key: AttachmentKey, ifindex: int) -> int:
    """A new link. A hook takes a program once, and a link that nobody holds any more is on it for some milliseconds."""
    deadline = time.monotonic() + _RELEASE_S
    while True:
        try:
            with hurried():
                return _attached(program, key, ifindex)
        except KernelError as error:
            if error.errno not in (errno.EEXIST, *xdp.OCCUPIED) or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _attached(program: int, key: AttachmentKey, ifindex: int) -> int:
    if key.hook in XDP_HOOKS:
        return xdp.link(program, key.ifname, ifindex, key.hook)
    _, attach_type = _KINDS[key.hook]
    return programs.attach_tcx(program, ifindex, attach_type)


def _is_on(about: LinkInfo, key: AttachmentKey) -> bool:
    """Whether the link is on the device and hook that its pin speaks of; a detached one has device 0."""
    wanted = *_KINDS[key.hook], _ifindex(key.ifname)
    return about.ifindex != 0 and (about.kind, about.attach_type, about.ifindex) == wanted


def _ifindex(ifname: str) -> int:
    """0 if there is no such device."""
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        return 0
