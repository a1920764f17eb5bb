"""Compiled cases as one state of the maps: several at once, each with addresses of its own.

Judged alone, a case would cost a transaction. What cases can share without seeing each other they share: prefixes, if
they name the same ones. Every end gets two addresses: `own`, which is judged here, and `far`, which has the same
identity and is judged elsewhere, so that a packet between an own and a far address asks one side alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import count

import numpy as np

from reconciler.engine.rows import Columns, DictRows
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE, EndpointRow, IpcacheFlag
from reconciler.model.identity import Reserved
from reconciler.verdict.case import IpAddress, Standing
from reconciler.verdict.world import World

_FIRST4 = int(IPv4Address("240.0.0.1"))  # RFC 1112: reserved, so that no case has an end there
_FIRST6 = int(IPv6Address("100::1:0:0:1"))  # RFC 6666
_MAPPED, _MAPPED_BITS, _ALL_BITS, _WORD = 0xFFFF << 32, 96, 128, (1 << 64) - 1
_DEVICE = EndpointRow("lo", "02:00:00:00:00:01")  # packets of test runs go nowhere
MOST_SUBJECTS = 2000

Shared = frozenset[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses of an end, by family (4 and 6); an end outside that is known by address has no other."""

    own: dict[int, IpAddress]
    far: dict[int, IpAddress]


@dataclass(slots=True)
class Load:
    """Worlds with the same shared rows whose subjects are all different."""

    shared: Shared
    worlds: list[int] = field(default_factory=list)
    subjects: set[int] = field(default_factory=set)

    def fits(self, subjects: frozenset[int]) -> bool:
        return self.subjects.isdisjoint(subjects) and len(self.subjects) + len(subjects) <= MOST_SUBJECTS


def loads(worlds: Sequence[World]) -> list[Load]:
    """All of them, in few loads; `Load.worlds` are indexes."""
    found: dict[Shared, list[Load]] = {}
    for index, world in enumerate(worlds):
        shared, subjects = _shared(world), world.policy.subjects - {Reserved.HOST}
        alike = found.setdefault(shared, [])
        load = next((one for one in reversed(alike) if one.fits(subjects)), None)
        if load is None:
            alike.append(load := Load(shared))
        load.worlds.append(index)
        load.subjects |= subjects
    return [load for alike in found.values() for load in alike]


def _shared(world: World) -> Shared:
    """Its ipcache without what its ends have as their own."""
    rows = world.judging.ipcache
    mine = {
        _key(address, _ALL_BITS)[:2] for name, address in world.addresses.items() if world.ends[name].labels is not None
    }
    keep = [place for place, (high, low, bits, _) in enumerate(rows.keys.tolist()) if (high, low) not in mine]
    return frozenset((rows.keys[place].tobytes(), rows.values[place].tobytes()) for place in keep)


def places(worlds: Sequence[World]) -> list[dict[str, Place]]:
    """Addresses for the ends of each world, no two the same."""
    taken = {end.address for world in worlds for end in world.ends.values()}
    free = {4: _free(_FIRST4, IPv4Address, taken), 6: _free(_FIRST6, IPv6Address, taken)}
    found = []
    for world in worlds:
        of_world: dict[str, Place] = {}
        for name, end in world.ends.items():
            if end.labels is None and end.address is not None:
                of_world[name] = Place({}, {end.address.version: end.address})
            else:
                far = {family: next(addresses) for family, addresses in free.items()}
                policed = end.standing is Standing.POLICED
                of_world[name] = Place({family: next(more) for family, more in free.items()} if policed else {}, far)
        found.append(of_world)
    return found


def _free(first: int, kind: type[IpAddress], taken: set[IpAddress | None]) -> Iterator[IpAddress]:
    return (address for number in count(first) if (address := kind(number)) not in taken)


def tables(load: Load, worlds: Sequence[World], placed: Sequence[dict[str, Place]]) -> dict[str, Columns | DictRows]:
    """Rows of `endpoints`, `ipcache` and `policy`; `worlds` and `placed` are those of the load."""
    keys, values, endpoints = [], [], {}
    for world, of_world in zip(worlds, placed, strict=True):
        for name, place in of_world.items():
            if world.ends[name].labels is None:
                continue
            identity, flags = world.peers[name]
            for address in place.own.values():
                endpoints[address] = _DEVICE
                keys.append(_key(address, _ALL_BITS))
                values.append((identity, flags))
            for address in place.far.values():
                keys.append(_key(address, _ALL_BITS))
                values.append((identity, flags & ~IpcacheFlag.LOCAL))
    shared = sorted(load.shared)
    return {
        "endpoints": DictRows(endpoints),
        "ipcache": Columns(
            np.concatenate([np.array(keys, IPCACHE_KEY), _records((key for key, _ in shared), IPCACHE_KEY)]),
            np.concatenate([np.array(values, IPCACHE_VALUE), _records((value for _, value in shared), IPCACHE_VALUE)]),
        ),
        "policy": _policy(worlds),
    }


def _policy(worlds: Sequence[World]) -> Columns:
    """Of all subjects but the host: what it says is told apart from what its workloads say."""
    keys = np.concatenate([world.judging.policy.keys for world in worlds])
    values = np.concatenate([world.judging.policy.values for world in worlds])
    of_workloads = keys["subject"] != Reserved.HOST
    return Columns(keys[of_workloads], values[of_workloads])


def _records(rows: Iterable[bytes], dtype: np.dtype[np.void]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.frombuffer(b"".join(rows), dtype)


def _key(address: IpAddress, bits: int) -> tuple[int, int, int, int]:
    value = int(address) | (_MAPPED if address.version == 4 else 0)
    return value >> 64, value & _WORD, bits, 0
