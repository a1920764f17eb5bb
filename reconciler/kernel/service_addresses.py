"""Addresses and ports of services between their two forms: logical (model/balancing.py), and as maps have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAPPED = 0xFFFF  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2

Octets = NDArray[np.uint8]


def is_mapped(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which rows have an IPv4 address."""
    mapped: NDArray[np.bool_] = (rows["high"] == 0) & (rows["low"] >> np.uint64(32) == _MAPPED)
    return mapped


def packed(rows: NDArray[np.void]) -> Octets:
    """[row, 16] in network order; IPv4 in the last four."""
    both = np.empty((len(rows), 2), ">u8")
    both[:, 0], both[:, 1] = rows["high"], rows["low"]
    return both.view(np.uint8)


def words_from(address: NDArray[Any], *, ipv4: bool) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The two words of addresses that are numbers in network order, or rows of 16 octets."""
    if ipv4:
        low = address.view(">u4").astype(np.uint64) | np.uint64(_MAPPED << 32)
        return np.zeros(len(low), np.uint64), low
    words = address.view(">u8").reshape(-1, 2).astype(np.uint64)
    return words[:, 0], words[:, 1]


def from_network_order(ports: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Between host and network order, either way."""
    return ports.astype(">u2").view(np.uint16)
