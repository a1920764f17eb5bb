"""Links at the XDP hook of a device: in its driver, or behind it where the driver takes no program.

A device runs one program there. A veth device loses what its program sends back (XDP_TX) unless its other end runs one
too, so its driver is asked only where the Cluster insists.
Source: linux/if_link.h (XDP_FLAGS_*), kernel net/core/dev.c (dev_xdp_attach), drivers/net/veth.c (veth_xdp_flush).
"""

from __future__ import annotations

import errno
import logging
import os
import struct

from reconciler.bpf import programs
from reconciler.errors import KernelError
from reconciler.kernel import link_messages
from reconciler.kernel.link_messages import IFINFOMSG
from reconciler.kernel.netlink import Message, Netlink, attribute
from reconciler.model.datapath import Hook

log = logging.getLogger(__name__)

_IF_NONE, _GENERIC, _NATIVE, _REPLACE = 1 << 0, 1 << 1, 1 << 2, 1 << 4
_SET_LINK = 19  # RTM_SETLINK
_XDP = 43 | 1 << 15  # IFLA_XDP, nested
_FD, _FLAGS, _EXPECTED_FD = 1, 3, 8  # IFLA_XDP_*
_NOTHING = -1
OCCUPIED = (errno.EBUSY, errno.EEXIST)  # by another program; by one of the other mode
_VETH = "what a veth device sends back is lost unless its other end runs an XDP program too"


def link(program: int, ifname: str, ifindex: int, hook: Hook) -> int:
    """A new link. Raises KernelError with the device and the kernel's reason."""
    if hook is not Hook.XDP:
        return _made(program, ifname, ifindex, _NATIVE if hook is Hook.XDP_NATIVE else _GENERIC)
    reason = _VETH if _is_veth(ifindex) else ""
    if not reason:
        try:
            return _made(program, ifname, ifindex, _NATIVE)
        except KernelError as error:
            if error.errno in OCCUPIED:
                raise
            reason = str(error)
    made = _made(program, ifname, ifindex, _GENERIC)
    log.warning("XDP is generic device=%s reason=%r", ifname, reason)
    return made


def _is_veth(ifindex: int) -> bool:
    with Netlink() as netlink:
        end = link_messages.by_index(netlink, ifindex)
    return end is not None and end.kind == "veth"


def _made(program: int, ifname: str, ifindex: int, mode: int) -> int:
    try:
        return programs.attach_xdp(program, ifindex, mode)
    except KernelError as error:
        name = "native" if mode == _NATIVE else "generic"
        reason = _reason(program, ifindex, mode) or os.strerror(error.errno)
        said = f"{ifname} takes no {name} XDP program: {reason}"
        raise KernelError(said, remedy=_remedy(ifname, mode, reason), errno=error.errno) from error


def _remedy(ifname: str, mode: int, reason: str) -> str:
    remedy = f"set a smaller MTU on {ifname}" if "MTU" in reason else f"change what the reason says of {ifname}"
    return f"{remedy}, or set spec.xdp.mode of the Cluster to auto or generic" if mode == _NATIVE else remedy


def _reason(program: int, ifindex: int, mode: int) -> str:
    """In the kernel's own words, which bpf(2) does not give: netlink is asked for the same, and refuses it too."""
    with Netlink() as netlink:
        try:
            netlink.write(_setting(ifindex, program, mode | _IF_NONE))
            netlink.write(_setting(ifindex, _NOTHING, mode | _REPLACE, program))  # what stood in the way has just gone
        except OSError as error:
            return error.strerror or ""
    return ""


def _setting(ifindex: int, program: int, flags: int, expected: int = _NOTHING) -> Message:
    said = attribute(_FD, struct.pack("=i", program)) + attribute(_FLAGS, struct.pack("=I", flags))
    if expected != _NOTHING:
        said += attribute(_EXPECTED_FD, struct.pack("=i", expected))
    return Message(_SET_LINK, 0, IFINFOMSG.pack(0, 0, ifindex, 0, 0) + attribute(_XDP, said))
