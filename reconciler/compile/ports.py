"""Port matches as prefixes: what a longest-prefix match can tell apart.

ICMP types stand in as ports. Type 0 (echo reply) is a type like any other, so for ICMP `first` 0 and `last` 0 mean
that one type and 0 to 255 means all of them, while for the transports 0 to 0 means every port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reconciler.model.cluster import NamedPort
from reconciler.model.policy import PROTOCOLS, PortMatch

PORT_BITS = 16
ICMP = frozenset((PROTOCOLS["ICMP"], PROTOCOLS["ICMPV6"]))


class PortPrefix(NamedTuple):
    """Of `port` the first `bits` of 16 compare; protocol 0 is any and goes with 0 bits."""

    protocol: int
    port: int
    bits: int


ANY_PORT = PortPrefix(0, 0, 0)


def prefixes(match: PortMatch) -> tuple[PortPrefix, ...]:
    """The fewest prefixes that are together exactly `match`, which is not a named one. At most 30 for a range."""
    if match.first == match.last == 0 and match.protocol not in ICMP:
        return (PortPrefix(match.protocol, 0, 0),)
    return tuple(PortPrefix(match.protocol, port, bits) for port, bits in _aligned(match.first, match.last))


def _aligned(first: int, last: int) -> Iterator[tuple[int, int]]:
    while first <= last:
        alignment = first & -first if first else 1 << PORT_BITS
        size = min(alignment, 1 << (last - first + 1).bit_length() - 1)
        yield first, PORT_BITS - size.bit_length() + 1
        first += size


def covering(prefix: PortPrefix) -> Iterator[PortPrefix]:
    """Every wider prefix that contains this one, the nearest first."""
    protocol, port, bits = prefix
    while bits:
        bits -= 1
        yield PortPrefix(protocol, port & (0xFFFF << PORT_BITS - bits), bits)
    if protocol:
        yield ANY_PORT


def resolve(match: PortMatch, ports: Iterable[NamedPort]) -> tuple[PortPrefix, ...]:
    """What a named port means where `ports` are the destination's; nothing if it does not have it."""
    found = {port.port for port in ports if (port.name, port.protocol) == (match.name, match.protocol)}
    return tuple(PortPrefix(match.protocol, port, PORT_BITS) for port in sorted(found))
