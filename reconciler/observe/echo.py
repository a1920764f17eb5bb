"""ICMP echo, to find out who can be reached: RFC 792, RFC 4443 section 4.

A ping socket needs no privilege where net.ipv4.ping_group_range has our group; a raw one needs CAP_NET_RAW. Both are
told apart from other pings on this host by octets that only this process knows.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from reconciler.errors import PermissionMissing

Address = IPv4Address | IPv6Address

_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1  # linux/icmp.h, linux/icmpv6.h
_HEADER = struct.Struct("!BBHHH")
_NUMBER = struct.Struct("!Q")
_SECRET_BYTES = 8
_PIECE = 2048


class Echo:
    """One socket of a family (4 or 6), which does not block. Raises PermissionMissing if there can be none."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._secret = os.urandom(_SECRET_BYTES)
        self._socket = _opened(version)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, address: Address, number: int) -> bool:
        """Whether it could be sent."""
        body = self._secret + _NUMBER.pack(number)
        head = _HEADER.pack(_REQUEST[self._version], 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
        head = _HEADER.pack(_REQUEST[self._version], 0, _checksum(head + body), os.getpid() & 0xFFFF, number & 0xFFFF)
        try:
            self._socket.sendto(head + body, (str(address), 0))
        except OSError:
            return False
        return True

    def read(self) -> list[tuple[Address, int]]:
        """Who has answered by now, and to which number."""
        found: list[tuple[Address, int]] = []
        while True:
            try:
                packet, source = self._socket.recvfrom(_PIECE)
            except BlockingIOError:
                return found
            except OSError:  # an error that came back for a packet that was sent, as ping(8) sees it
                continue
            number = self._number(packet)
            if number is not None:
                found.append((ip_address(source[0].partition("%")[0]), number))

    def _number(self, packet: bytes) -> int | None:
        if self._version == 4 and self._socket.type == socket.SOCK_RAW and packet:
            packet = packet[(packet[0] & 0x0F) * 4 :]  # raw(7): with its IP header
        body = packet[_HEADER.size :]
        if len(body) != _SECRET_BYTES + _NUMBER.size or packet[0] != _REPLY[self._version]:
            return None
        return int(_NUMBER.unpack_from(body, _SECRET_BYTES)[0]) if body.startswith(self._secret) else None


def _opened(version: int) -> socket.socket:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            opened = socket.socket(_FAMILY[version], kind | socket.SOCK_NONBLOCK, _PROTOCOL[version])
        except OSError:
            continue
        if kind == socket.SOCK_RAW:
            _only_replies(opened, version)
        return opened
    raise PermissionMissing(
        "other nodes cannot be pinged", remedy="give the daemon CAP_NET_RAW, or its group net.ipv4.ping_group_range"
    )


def _only_replies(opened: socket.socket, version: int) -> None:
    """A set bit keeps that type out."""
    if version == 4:
        opened.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF ^ (1 << _REPLY[4])))
        return
    words = [0xFFFFFFFF] * 8
    words[_REPLY[6] >> 5] ^= 1 << (_REPLY[6] & 31)
    opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))


def _checksum(data: bytes) -> int:
    """RFC 1071; the data is of even length. That of ICMPv6, and that of ping sockets, the kernel writes anew."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
