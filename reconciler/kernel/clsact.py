"""Programs on devices by filters of the clsact qdisc, for kernels without TCX links.

A filter is ours by its priority, handle and name. Replacing one loses no packet. The qdisc stays when our filters go:
others may use it. Source: linux/pkt_sched.h, linux/pkt_cls.h, kernel net/sched/cls_bpf.c.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Collection, Iterator

from reconciler.errors import KernelError
from reconciler.kernel.netlink import CREATE, EXCL, Message, Netlink, attribute, doing, pairs, text, u32
from reconciler.model.datapath import AttachmentKey, Hook
from reconciler.model.network import PROTOCOL

_NEW_QDISC, _GET_QDISC = 36, 38  # RTM_*
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_TCMSG = struct.Struct("=BxxxiIII")  # family, device, handle, parent, info
_KIND, _OPTIONS = 1, 2  # TCA_*
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11  # TCA_BPF_*
_DIRECT_ACTION = 1

_QDISC_PARENT, _QDISC_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_PARENTS = {Hook.INGRESS: 0xFFFFFFF2, Hook.EGRESS: 0xFFFFFFF3}
_PREFIX = "plumb:"
_HANDLE = PROTOCOL
_PRIORITY = PROTOCOL << 16
_EVERY_PROTOCOL = socket.htons(0x0003)  # ETH_P_ALL
_NOTHING_THERE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)  # no filter, no device, no clsact on it


class ClsactHooks:
    def attached(self, only: Collection[AttachmentKey] | None = None) -> Iterator[tuple[AttachmentKey, int]]:
        return (found for found in self._attached() if only is None or found[0] in only)

    def key_of_link(self, number: int) -> AttachmentKey | None:
        """A filter is no link."""
        return None

    def _attached(self) -> Iterator[tuple[AttachmentKey, int]]:
        with Netlink() as netlink:
            for ifindex in _devices(netlink):
                for hook, parent in _PARENTS.items():
                    for body in netlink.dump(_GET_FILTER, _TCMSG.pack(0, ifindex, 0, parent, 0)):
                        if program := _program(body):
                            yield AttachmentKey(netlink.ifname(ifindex), hook), program

    def attach(self, key: AttachmentKey, program: int, name: str) -> None:
        with Netlink() as netlink, doing(f"attach {name} to {key.ifname}"):
            ifindex = _index(netlink, key.ifname)
            _ensure_qdisc(netlink, ifindex)
            options = (
                attribute(_FD, program.to_bytes(4, sys.byteorder))
                + attribute(_NAME, f"{_PREFIX}{name}".encode() + b"\0")
                + attribute(_FLAGS, _DIRECT_ACTION.to_bytes(4, sys.byteorder))
            )
            body = _filter(ifindex, key.hook) + attribute(_KIND, b"bpf\0") + attribute(_OPTIONS, options)
            netlink.write(Message(_NEW_FILTER, CREATE, body))

    def detach(self, key: AttachmentKey) -> None:
        with Netlink() as netlink, doing(f"detach from {key.ifname}"):
            try:
                ifindex = netlink.index(key.ifname)
                filters = netlink.dump(_GET_FILTER, _TCMSG.pack(0, ifindex, 0, _PARENTS[key.hook], 0))
                if any(_program(body) for body in filters):
                    body = _filter(ifindex, key.hook) + attribute(_KIND, b"bpf\0")
                    netlink.write(Message(_DELETE_FILTER, 0, body))
            except OSError as error:
                if error.errno not in _NOTHING_THERE:
                    raise


def _filter(ifindex: int, hook: Hook) -> bytes:
    return _TCMSG.pack(0, ifindex, _HANDLE, _PARENTS[hook], _PRIORITY | _EVERY_PROTOCOL)


def _program(body: bytes) -> int:
    """The id of the program of a filter that is ours, else 0."""
    _, _, handle, _, info = _TCMSG.unpack_from(body)
    said = dict(pairs(body, _TCMSG.size))
    if handle != _HANDLE or info & 0xFFFF0000 != _PRIORITY or text(said.get(_KIND, b"")) != "bpf":
        return 0
    options = dict(pairs(said.get(_OPTIONS, b"")))
    return u32(options.get(_ID, b"")) if text(options.get(_NAME, b"")).startswith(_PREFIX) else 0


def _devices(netlink: Netlink) -> list[int]:
    """Indices of the devices that have a clsact qdisc."""
    bodies = netlink.dump(_GET_QDISC, _TCMSG.pack(0, 0, 0, 0, 0))
    found = ((_TCMSG.unpack_from(body)[1], dict(pairs(body, _TCMSG.size))) for body in bodies)
    return [ifindex for ifindex, said in found if text(said.get(_KIND, b"")) == "clsact"]


def _ensure_qdisc(netlink: Netlink, ifindex: int) -> None:
    body = _TCMSG.pack(0, ifindex, _QDISC_HANDLE, _QDISC_PARENT, 0) + attribute(_KIND, b"clsact\0")
    try:
        netlink.write(Message(_NEW_QDISC, CREATE | EXCL, body))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


def _index(netlink: Netlink, ifname: str) -> int:
    try:
        return netlink.index(ifname)
    except OSError as error:
        raise KernelError(f"no device {ifname} to run a program on", errno=error.errno or 0) from error
