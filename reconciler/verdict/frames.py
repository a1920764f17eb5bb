"""First packets of flows as arrays of bytes, one row a packet: what the programs read of them is right, no more.

Checksums are left out: the programs update them and never check them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconciler.model.policy import PROTOCOLS
from reconciler.verdict.case import IpAddress

_MACS = bytes.fromhex("eeeeeeeeeeee020000000001")
_TCP, _ICMP, _ICMPV6 = PROTOCOLS["TCP"], PROTOCOLS["ICMP"], PROTOCOLS["ICMPV6"]
_UDP = PROTOCOLS["UDP"]
ICMP = (_ICMP, _ICMPV6)
_SYN, _TCP_WORDS, _HOPS = 2, 5 << 4, 64
_QUOTED_PORT = 9  # discard (RFC 863): of the packet that an ICMP error quotes


class Opening(NamedTuple):
    """`destination_port`: for ICMP the type."""

    source: IpAddress
    destination: IpAddress
    protocol: int
    source_port: int
    destination_port: int


def frames(openings: Sequence[Opening]) -> NDArray[np.uint8]:
    """All of one family. An ICMP message of any type quotes a packet that nobody sent."""
    heads = {one.protocol: _ip(one, one.protocol) for one in openings}
    base = np.frombuffer(b"".join(heads[one.protocol] for one in openings), np.uint8).reshape(len(openings), -1).copy()
    source, size = (26, 4) if openings[0].source.version == 4 else (22, 16)
    transport = source + 2 * size
    base[:, source : source + size] = _bytes(b"".join(one.source.packed for one in openings), size)
    base[:, source + size : transport] = _bytes(b"".join(one.destination.packed for one in openings), size)
    for place, one in enumerate(openings):
        if one.protocol in ICMP:
            base[place, transport:] = np.frombuffer(_message(one), np.uint8)
        else:
            ports = one.source_port << 16 | one.destination_port
            base[place, transport : transport + 4] = np.frombuffer(ports.to_bytes(4, "big"), np.uint8)
    return base


def _bytes(packed: bytes, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(packed, np.uint8).reshape(-1, size)


def _body_length(version: int) -> int:
    """Of an ICMP header and a quoted IP packet with ports, which is the longest that anybody needs."""
    return 8 + (20 if version == 4 else 40) + 8


def _ip(one: Opening, protocol: int) -> bytes:
    """Ethernet and IP without addresses, and an empty body in which TCP opens a connection."""
    body = bytearray(_body_length(one.source.version))
    if protocol == _TCP:
        body[12:14] = _TCP_WORDS, _SYN
    return _MACS + (b"\x08\x00" if one.source.version == 4 else b"\x86\xdd") + _head(one, protocol, len(body)) + body


def _head(one: Opening, protocol: int, length: int) -> bytes:
    if one.source.version == 4:
        fixed = bytes((0x45, 0, *(20 + length).to_bytes(2, "big"), 0, 1, 0, 0, _HOPS, protocol, 0, 0))
        return fixed + one.source.packed + one.destination.packed
    return (
        bytes((0x60, 0, 0, 0, *length.to_bytes(2, "big"), protocol, _HOPS)) + one.source.packed + one.destination.packed
    )


def _message(one: Opening) -> bytes:
    quoted = Opening(one.destination, one.source, _UDP, _QUOTED_PORT, _QUOTED_PORT)
    head = bytes((one.destination_port & 0xFF, 0, 0, 0, *one.source_port.to_bytes(2, "big"), 0, 1))
    ports = (_QUOTED_PORT << 16 | _QUOTED_PORT).to_bytes(4, "big")
    return head + _head(quoted, _UDP, 8) + ports + bytes((0, 8, 0, 0))
