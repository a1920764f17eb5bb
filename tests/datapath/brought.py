"""Packets as one node brings them to a backend of another: in an option, or wrapped (bpf/lib/direct.h)."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from .packets import DONT_FRAGMENT, checksum, ethernet

OPTION, IPIP, GENEVE = 1, 2, 3  # enum direct_return
PORT = 6081
WORLD_VNI = 2 << 8


def outer(source: str, destination: str, protocol: int, payload: bytes, tag: int = 0) -> bytes:
    """`tag`: the identification of IPv4, the flow label of IPv6."""
    src, dst = ip_address(source), ip_address(destination)
    if src.version == 6:
        head = struct.pack("!IHBB", 6 << 28 | tag, len(payload), protocol, 64) + src.packed + dst.packed
        return ethernet(head + payload, 0x86DD)
    bare = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), tag, DONT_FRAGMENT, 64, protocol, 0)
    bare += src.packed + dst.packed
    return ethernet(bare[:10] + struct.pack("!H", checksum(bare)) + bare[12:] + payload, 0x0800)


def in_ipip(source: str, destination: str, packet: bytes, port: int) -> bytes:
    """`packet`: as the client sent it; `port`: the backend's."""
    return outer(source, destination, 41 if ":" in destination else 4, packet[14:], port)


def in_geneve(source: str, destination: str, packet: bytes, front: tuple[str, int], udp_port: int = 0xC000) -> bytes:
    """`packet`: for the backend already."""
    address = ip_address(front[0])
    kind = 0x86DD if address.version == 6 else 0x0800
    known = struct.pack("!HH" if address.version == 6 else "!H", front[1], *[0] * (address.version == 6))
    known += address.packed + bytes(-(len(known) + len(address.packed)) % 4)
    option = struct.pack("!HBB", 0xFF01, 0x81, len(known) // 4) + known
    inner = struct.pack("!BBHI", len(option) // 4, 0x40, kind, WORLD_VNI) + option + packet[14:]
    return outer(source, destination, 17, struct.pack("!HHHH", udp_port, PORT, 8 + len(inner), 0) + inner)


def with_option(packet: bytes, front: tuple[str, int]) -> bytes:
    """`packet`: for the backend already."""
    address = ip_address(front[0])
    body = bytearray(packet[14:])
    if address.version == 6:
        option = struct.pack("!BBBBHH", body[6], 2, 0x1E, 20, front[1], 0) + address.packed
        body[4:7] = struct.pack("!HB", len(body) - 40 + len(option), 60)
        return packet[:14] + bytes(body[:40]) + option + bytes(body[40:])
    option = struct.pack("!BBH", 0x1E, 8, front[1]) + address.packed
    head = bytearray(body[:20])
    head[0] += 2
    head[2:4] = struct.pack("!H", len(body) + len(option))
    head[10:12] = bytes(2)
    head[10:12] = struct.pack("!H", checksum(bytes(head) + option))
    return packet[:14] + bytes(head) + option + bytes(body[20:])
