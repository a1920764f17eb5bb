"""Rows of the tables that balance load: frontends, versions of services, backends (bpf/lib/service.h).

Columns are logical here, as in `datapath`: addresses are 128 bits in two words, IPv4 mapped, ports in host order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np

_MAPPED = 0xFFFF  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_WORD = (1 << 64) - 1


class Algorithm(Enum):
    """How a flow finds its backend among those of a service."""

    MAGLEV = "maglev"  # by a hash of the flow: every host and every hook finds the same one
    RANDOM = "random"


class WhenNone(Enum):
    """What becomes of a flow to a service without a backend."""

    REFUSE = "refuse"  # its client is told
    DROP = "drop"


class Scope(IntEnum):
    """Where a frontend is used from."""

    INSIDE = 0  # by workloads and the host itself
    OUTSIDE = 1  # by what comes in on a node device


class FrontendFlag(IntFlag):
    LOCAL = 1  # all backends are of this host, and see the client's own address
    SOURCES = 2  # only for the service's `sources`


class BackendFlag(IntFlag):
    V6 = 1
    LOCAL = 2  # of this host
    DRAINING = 4  # keeps its flows and gets no new ones
    UNHEALTHY = 8  # does not answer its checks
    DIRECT = 16  # of another host, which answers clients outside by itself


FRONTEND_KEY = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("port", "<u2"), ("protocol", "u1"), ("scope", "u1"), ("pad", "<u4")]
)
FRONTEND_VALUE = np.dtype([("service", "<u4"), ("flags", "<u4")])

BACKEND_KEY = np.dtype([("id", "<u4")])
BACKEND_VALUE = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("port", "<u2"), ("protocol", "u1"), ("flags", "u1"), ("pad", "<u4")]
)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One version of what stands behind frontends, keyed by its id: another content has another id.

    name        number of the service's port, the same in all its versions
    backends    ids of those that get new flows, with their weights (1 or more), in the order of ids
    sources     clients from outside that may use it; empty: anybody
    """

    name: int
    backends: tuple[tuple[int, int], ...]
    algorithm: Algorithm = Algorithm.MAGLEV
    affinity_s: int = 0
    when_none: WhenNone = WhenNone.REFUSE
    sources: tuple[IPv4Network | IPv6Network, ...] = ()


def words_of(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    """The two words of an address, most significant first."""
    value = int(address)
    return (0, value | _MAPPED << 32) if address.version == 4 else (value >> 64, value & _WORD)


def address_of(high: int, low: int) -> IPv4Address | IPv6Address:
    if not high and low >> 32 == _MAPPED:
        return IPv4Address(low & 0xFFFFFFFF)
    return IPv6Address(high << 64 | low)
