"""What a device does for its packets, switched as ethtool(8) does. Source: linux/ethtool.h."""

from __future__ import annotations

import ctypes
import socket
import struct
from fcntl import ioctl

from reconciler.kernel import netns

_SIOCETHTOOL = 0x8946
TX_CHECKSUMS = 0x17  # ETHTOOL_STXCSUM


def switch(space: str, device: str, offload: int, *, on: bool) -> None:
    value = ctypes.create_string_buffer(struct.pack("=II", offload, on))
    with netns.inside(space), socket.socket(type=socket.SOCK_DGRAM) as asked:
        ioctl(asked, _SIOCETHTOOL, struct.pack("16sQ16x", device.encode(), ctypes.addressof(value)))
