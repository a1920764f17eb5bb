"""Packets with right checksums, padded to 64 bytes as on a wire."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

TCP, UDP = 6, 17
ACK, SYN = 0x10, 0x02
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_SHORTEST = 64

# Where source and destination port are, for making flows of a packet.
PORTS4, PORTS6 = 14 + 20, 14 + 40


def tcp(
    source: str,
    destination: str,
    source_port: int,
    destination_port: int,
    *,
    sender: str,
    receiver: str,
    flags: int = ACK,
) -> bytes:
    """An Ethernet frame; `sender` and `receiver` are MAC addresses."""
    addresses = ip_address(source), ip_address(destination)
    segment = struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 1, 0x50, flags, 8192, 0, 0)
    pseudo = addresses[0].packed + addresses[1].packed + struct.pack("!II", len(segment), TCP)
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    if addresses[0].version == 4:
        return _frame(sender, receiver, _IPV4, _ipv4(*addresses, len(segment)) + segment)
    header = struct.pack("!IHBB", 6 << 28, len(segment), TCP, 64) + addresses[0].packed + addresses[1].packed
    return _frame(sender, receiver, _IPV6, header + segment)


def arp_request(source: str, wanted: str, *, sender: str) -> bytes:
    """Who has `wanted`?"""
    mac, nobody = _mac(sender), bytes(6)
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1)
    body += mac + IPv4Address(source).packed + nobody + IPv4Address(wanted).packed
    return _frame(sender, "ff:ff:ff:ff:ff:ff", _ARP, body)


def _ipv4(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, payload: int) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + payload, 1, 0x4000, 64, TCP, 0) + source.packed + destination.packed
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:]


def _frame(sender: str, receiver: str, kind: int, content: bytes) -> bytes:
    return (_mac(receiver) + _mac(sender) + struct.pack("!H", kind) + content).ljust(_SHORTEST, b"\0")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
