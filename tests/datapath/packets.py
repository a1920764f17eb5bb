"""Packets as bytes: Ethernet, IPv4 or IPv6, and what is in them, with right checksums."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
DONT_FRAGMENT = 0x4000
NOT_ECT, ECT1, ECT0, CE = range(4)  # RFC 3168; the rest of a class is the DSCP


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(payload: bytes, kind: int, source: str = "02:00:00:00:00:01", target: str = "ee:ee:ee:ee:ee:ee") -> bytes:
    return bytes.fromhex(target.replace(":", "") + source.replace(":", "")) + struct.pack("!H", kind) + payload


def ip(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """A frame with an IP packet of either family. `fragment`: IPv4's flags and offset field; `options`: IPv4's."""
    src, dst = ip_address(source), ip_address(destination)
    if src.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl) + src.packed + dst.packed
        return ethernet(head + payload, 0x86DD)
    length = 20 + len(options)
    fields = (0x40 | length // 4, 0, length + len(payload), 1, fragment, ttl, protocol)
    bare = struct.pack("!BBHHHBBH", *fields, 0) + src.packed + dst.packed + options
    return ethernet(bare[:10] + struct.pack("!H", checksum(bare)) + bare[12:] + payload, 0x0800)


def uncut(frame: bytes) -> bytes:
    """The same with "do not fragment", which IPv6 says by itself."""
    if frame[12:14] != b"\x08\x00":
        return frame
    head = bytearray(frame[14:34])
    head[6:8], head[10:12] = DONT_FRAGMENT.to_bytes(2), bytes(2)
    head[10:12] = checksum(bytes(head)).to_bytes(2)
    return ethernet(bytes(head) + frame[34:], 0x0800)


def class_of(frame: bytes) -> int:
    """DSCP and ECN of its outermost IP header."""
    return frame[15] if frame[12:14] == b"\x08\x00" else (int.from_bytes(frame[14:16]) >> 4) & 0xFF


def in_class(frame: bytes, value: int) -> bytes:
    """The same with another class."""
    if frame[12:14] != b"\x08\x00":
        return frame[:14] + (6 << 12 | value << 4 | frame[15] & 15).to_bytes(2) + frame[16:]
    head = bytearray(frame[14:34])
    head[1], head[10:12] = value, bytes(2)
    head[10:12] = checksum(bytes(head)).to_bytes(2)
    return frame[:14] + bytes(head) + frame[34:]


def tcp(source: str, sport: int, destination: str, dport: int, flags: int = SYN, data: bytes = b"") -> bytes:
    return ip(source, destination, TCP, segment(source, sport, destination, dport, flags, data))


def segment(
    source: str, sport: int, destination: str, dport: int, flags: int, data: bytes = b"", seq: int = 1, ack: int = 1
) -> bytes:
    """A packet of TCP without its IP header, which only its checksum knows."""
    bare = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 8192, 0, 0) + data
    return _summed(source, destination, TCP, bare, 16)


def udp(source: str, sport: int, destination: str, dport: int, data: bytes = b"x") -> bytes:
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    return ip(source, destination, UDP, _summed(source, destination, UDP, datagram, 6))


def sctp(source: str, sport: int, destination: str, dport: int, data: bytes = b"chunks") -> bytes:
    return ip(source, destination, SCTP, association(sport, dport, data))


def association(sport: int, dport: int, data: bytes) -> bytes:
    """A packet of SCTP without its IP header."""
    head = struct.pack("!HHI", sport, dport, 77)
    return head + struct.pack("<I", crc32c(head + bytes(4) + data)) + data


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A, bit by bit."""
    total = 0xFFFFFFFF
    for byte in data:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ (0x82F63B78 if total & 1 else 0)
    return total ^ 0xFFFFFFFF


def echo(source: str, destination: str, identifier: int = 7, *, reply: bool = False) -> bytes:
    """An echo request or reply of either family."""
    if ip_address(source).version == 6:
        message = struct.pack("!BBHHH", 129 if reply else 128, 0, 0, identifier, 1)
        return ip(source, destination, ICMPV6, _summed(source, destination, ICMPV6, message, 2))
    message = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, identifier, 1)
    return ip(source, destination, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def _summed(source: str, destination: str, protocol: int, body: bytes, at: int) -> bytes:
    src, dst = ip_address(source), ip_address(destination)
    pseudo = src.packed + dst.packed + struct.pack("!IxxxB", len(body), protocol)
    return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
