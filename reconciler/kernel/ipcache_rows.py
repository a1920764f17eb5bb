"""Ipcache rows in their two forms: logical (model/datapath.py), and in the layout of four maps (bpf/lib/ipcache.h).

A row counts with an identity of its own, or not at all (0), or with a borrowed one; what it says can change at the next
flip. In a trie a lookup finds the longest match, whose value must therefore tell whose it is: the upper byte of its
flags has the length of its prefix. Programs look at the lower byte only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf.maps import LPM_TRIE, Records
from reconciler.kernel.bpf_maps import Map
from reconciler.model.datapath import IPCACHE_KEY

BORROWED = 1 << 15  # from the prefix that covers the row, which itself is not there
_LENGTH, _LENGTH_MASK = 8, 0x7F
FLAGS = 0xFF

_MAPPED = 0xFFFF  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_MAPPED_BITS = 96
_ALL_BITS = 128


@dataclass(frozen=True, slots=True)
class Family:
    """One of the four maps: of IPv4 or IPv6, of addresses or prefixes."""

    map: str
    ipv4: bool
    exact: bool


FAMILIES = (
    Family("ipcache4", ipv4=True, exact=True),
    Family("ipcache6", ipv4=False, exact=True),
    Family("cidr4", ipv4=True, exact=False),
    Family("cidr6", ipv4=False, exact=False),
)


def by_family(keys: NDArray[np.void]) -> Iterator[tuple[Family, NDArray[np.intp]]]:
    """The families that hold any of these keys, and the indexes of those."""
    if not len(keys):
        return
    mapped = (keys["high"] == 0) & (keys["low"] >> np.uint64(32) == _MAPPED) & (keys["bits"] >= _MAPPED_BITS)
    exact = keys["bits"] == _ALL_BITS
    for family in FAMILIES:
        index = np.flatnonzero((mapped == family.ipv4) & (exact == family.exact))
        if len(index):
            yield family, index


def to_map(family: Family, keys: NDArray[np.void], dtype: np.dtype[Any]) -> Records:
    """Keys of the family's map for logical keys that it holds."""
    words = np.empty((len(keys), 2), ">u8")
    words[:, 0], words[:, 1] = keys["high"], keys["low"]
    address: Records = words.view(np.uint8)
    result = np.zeros(len(keys), dtype)
    if family.ipv4:
        address = np.ascontiguousarray(address[:, 12:]).view(np.uint32)[:, 0]
    if not family.exact:
        result["prefixlen"] = keys["bits"] - (_MAPPED_BITS if family.ipv4 else 0)
        result["address"] = address
    elif family.ipv4:
        result[:] = address
    else:
        result["bytes"] = address
    return result


def from_map(family: Family, keys: Records) -> NDArray[np.void]:
    """Logical keys for keys of the family's map."""
    result = np.zeros(len(keys), IPCACHE_KEY)
    address = keys if family.exact and family.ipv4 else keys["bytes" if family.exact else "address"]
    if family.ipv4:
        low = np.ascontiguousarray(address).view(">u4").astype(np.uint64)
        result["low"] = low | np.uint64(_MAPPED << 32)
    else:
        words = np.ascontiguousarray(address).view(">u8").reshape(-1, 2)
        result["high"], result["low"] = words[:, 0], words[:, 1]
    length = _ALL_BITS if family.exact else keys["prefixlen"] + np.uint32(_MAPPED_BITS if family.ipv4 else 0)
    result["bits"] = length
    return result


@dataclass(frozen=True, slots=True)
class Meaning:
    """What rows say at one epoch, in columns. `flags` as in the kernel, with what the upper byte says."""

    identity: NDArray[np.uint32]
    flags: NDArray[np.uint16]

    @property
    def is_own(self) -> NDArray[np.bool_]:
        own: NDArray[np.bool_] = (self.identity != 0) & (self.flags & BORROWED == 0)
        return own


def meaning(values: Records, epoch: int) -> Meaning:
    """As ipcache_at() in bpf/lib/ipcache.h."""
    later = staged(values, epoch)
    identity = np.where(later, values["previous"], values["identity"])
    return Meaning(identity, np.where(later, values["previous_flags"], values["flags"]))


def staged(values: Records, epoch: int) -> NDArray[np.bool_]:
    """Which rows count from a later epoch on."""
    waiting: NDArray[np.bool_] = (np.uint32(epoch) - values["since"]).view(np.int32) < 0
    return waiting


def lengths(map_: Map, keys: Records) -> NDArray[np.uint16]:
    """What the upper byte of a row's flags must be, borrowed or not."""
    if map_.info.kind != LPM_TRIE:
        return np.zeros(len(keys), np.uint16)
    return (keys["prefixlen"] << _LENGTH).astype(np.uint16)


def plain_flags(map_: Map, keys: Records, flags: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Flags without our notes; where these are not what we write, as they are, so that they equal nobody's wish."""
    return np.where(flags & ~np.uint16(FLAGS | BORROWED) == lengths(map_, keys), flags & FLAGS, flags)


def covers(map_: Map, keys: Records) -> tuple[NDArray[np.bool_], Records]:
    """For keys of a trie: whether a shorter prefix covers each, and the longest such prefix's value."""
    shorter = keys.copy()
    shorter["prefixlen"] -= keys["prefixlen"] > 0
    found, values = map_.lookup(shorter)
    return found & (keys["prefixlen"] > 0), values


def rows_of(map_: Map, keys: Records) -> tuple[NDArray[np.bool_], Records]:
    """Which keys have a row, and its value.

    In a trie, a value that does not name the key's length is the key's own only if it is not that of the prefix that
    covers it: then somebody else wrote it.
    """
    found, values = map_.lookup(keys)
    if map_.info.kind != LPM_TRIE:
        return found, values
    named = values["flags"] >> _LENGTH & _LENGTH_MASK
    unsure = np.flatnonzero(found & (named != keys["prefixlen"]))
    covered, theirs = covers(map_, keys[unsure])
    found[unsure] = ~covered | (values[unsure] != theirs)
    return found, values
