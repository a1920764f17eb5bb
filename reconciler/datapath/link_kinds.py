"""Which kinds of network devices the kernel can make, without making one.

RTM_NEWLINK answers EOPNOTSUPP for a kind that no module knows, and EINVAL for a known one under a name that no device
may have. Source: kernel net/core/rtnetlink.c (rtnl_newlink), net/core/dev.c (dev_valid_name).
"""

from __future__ import annotations

import errno
import socket
import struct

from reconciler.bpf.syscalls import refusal

_NEW_LINK = 16  # RTM_NEWLINK
_FLAGS = 0x1 | 0x4 | 0x200 | 0x400  # NLM_F_REQUEST, ACK, EXCL, CREATE
_IFNAME, _LINKINFO, _KIND = 3, 18, 1  # IFLA_*
_IMPOSSIBLE_NAME = b"no/name\0"
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_IFINFOMSG = bytes(16)


def is_known(kind: str) -> str:
    """Returns '' if the kernel, or a module that it can load, knows the kind. Raises KernelError if not."""
    body = (
        _IFINFOMSG
        + _attribute(_IFNAME, _IMPOSSIBLE_NAME)
        + _attribute(_LINKINFO, _attribute(_KIND, kind.encode() + b"\0"))
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.sendto(_HEADER.pack(_HEADER.size + len(body), _NEW_LINK, _FLAGS, 1, 0) + body, (0, 0))
        error = -struct.unpack_from("=i", netlink.recv(1 << 12), _HEADER.size)[0]
    if error == errno.EINVAL:
        return ""
    raise refusal(error, f"devices of kind {kind}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
