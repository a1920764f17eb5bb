"""Frontends of services, as a table: the maps `frontends4` and `frontends6` (bpf/lib/service.h).

Rows are written ahead of the flip, as those of the ipcache are: until then a row carries its old meaning too, and a
service of 0 means that there is none. Rows that only somebody else changed are put right where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf.maps import Records
from reconciler.engine.rows import Columns
from reconciler.engine.table import Flip
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.kernel.generation import Generation, Version, next_epoch
from reconciler.kernel.ipcache_rows import staged
from reconciler.kernel.service_addresses import from_network_order, is_mapped, packed, words_from
from reconciler.model.balancing import FRONTEND_KEY, FRONTEND_VALUE


@dataclass(frozen=True, slots=True)
class _Family:
    map: str
    ipv4: bool


FAMILIES = (_Family("frontends4", ipv4=True), _Family("frontends6", ipv4=False))


class FrontendsTable:
    name = "frontends"
    after: tuple[str, ...] = ("programs", "endpoints", "ipcache", "services")
    key_dtype = FRONTEND_KEY
    value_dtype = FRONTEND_VALUE

    def __init__(self, pinned: PinnedMaps, generation: Generation) -> None:
        self._maps = pinned
        self._generation = generation
        self.flip: Flip | None = generation
        generation.join(self)

    def live(self, only: NDArray[np.void] | None = None) -> Columns:
        """What counts for packets now; what is staged is not in it."""
        epoch = self._generation.current.epoch
        asked = [(family, None) for family in FAMILIES] if only is None else list(_by_family(only))
        parts = [_live(map_, family, epoch, keys) for family, keys in asked if (map_ := self._maps.find(family.map))]
        if not parts:
            return Columns(np.empty(0, FRONTEND_KEY), np.empty(0, FRONTEND_VALUE))
        return Columns(np.concatenate([part.keys for part in parts]), np.concatenate([part.values for part in parts]))

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        """Between the flip's `begin` and `flip`, once."""
        epoch = self._generation.current.epoch
        for family, wanted, gone in _parts(upserts, deletes):
            if not len(wanted) and not self._maps.find(family.map):
                continue
            map_ = self._maps.open(family.map)
            keys = _to_map(family, gone, map_)
            self._generation.stage(partial(map_.delete, keys))
            _stage(map_, _to_map(family, wanted.keys, map_), wanted.values, epoch)
            _stage(map_, keys, np.zeros(len(keys), FRONTEND_VALUE), epoch)

    def mend(self, upserts: Columns, deletes: NDArray[np.void]) -> bool:
        """Put rows right that somebody else changed, at once and without a flip. False: that takes a write."""
        epoch = self._generation.settled_epoch
        if not epoch:
            return False
        for family, wanted, gone in _parts(upserts, deletes):
            map_ = self._maps.open(family.map)
            map_.delete(_to_map(family, gone, map_))
            keys = _to_map(family, wanted.keys, map_)
            values = np.zeros(len(keys), map_.value_dtype)
            values["service"] = values["previous"] = wanted.values["service"]
            values["flags"] = values["previous_flags"] = wanted.values["flags"]
            values["since"] = epoch
            map_.update(keys, values)
        return True

    def keys_of(self, map_name: str, raw: bytes) -> NDArray[np.void]:
        """Keys of rows for keys as they lie in one of the maps, one behind the other."""
        (family,) = (family for family in FAMILIES if family.map == map_name)
        return _from_map(family, np.frombuffer(raw, self._maps.open(map_name).key_dtype))

    def discard(self, version: Version) -> None:
        """Rows that wait for a flip become what they were; rows without a meaning go. Reads every row."""
        for family in FAMILIES:
            if map_ := self._maps.find(family.map):
                keys, values = map_.read()
                now = _meaning(values, version.epoch)
                waiting = np.flatnonzero(staged(values, version.epoch) & (now["service"] != 0))
                again = values[waiting]
                again["service"], again["flags"] = now["service"][waiting], now["flags"][waiting]
                again["since"] = version.epoch
                map_.update(keys[waiting], again)
                map_.delete(keys[now["service"] == 0])


def _by_family(keys: NDArray[np.void]) -> Iterator[tuple[_Family, NDArray[np.void]]]:
    for family, index in _indexes(keys):
        yield family, keys[index]


def _indexes(keys: NDArray[np.void]) -> Iterator[tuple[_Family, NDArray[np.intp]]]:
    mapped = is_mapped(keys)
    for family in FAMILIES:
        index = np.flatnonzero(mapped == family.ipv4)
        if len(index):
            yield family, index


def _parts(upserts: Columns, deletes: NDArray[np.void]) -> Iterator[tuple[_Family, Columns, NDArray[np.void]]]:
    """What a write means for each family that it concerns."""
    wanted = {family: upserts.take(index) for family, index in _indexes(upserts.keys)}
    gone = dict(_by_family(deletes))
    for family in FAMILIES:
        if family in wanted or family in gone:
            yield family, wanted.get(family, upserts.take(slice(0, 0))), gone.get(family, deletes[:0])


def _live(map_: Map, family: _Family, epoch: int, only: NDArray[np.void] | None) -> Columns:
    if only is None:
        keys, values = map_.read()
    else:
        keys = _to_map(family, only, map_)
        found, values = map_.lookup(keys)
        keys, values = keys[found], values[found]
    now = _meaning(values, epoch)
    there = np.flatnonzero(now["service"])
    return Columns(_from_map(family, keys[there]), now[there])


def _stage(map_: Map, keys: Records, wanted: NDArray[np.void], epoch: int) -> None:
    """A row says what it says now until the flip, and what is wanted (nothing: 0) from it on."""
    found, old = map_.lookup(keys)
    now = _meaning(old, epoch)
    values = np.zeros(len(keys), map_.value_dtype)
    values["previous"] = np.where(found, now["service"], np.uint32(0))
    values["previous_flags"] = np.where(found, now["flags"], np.uint32(0))
    values["service"], values["flags"] = wanted["service"], wanted["flags"]
    values["since"] = next_epoch(epoch)
    map_.update(keys, values)


def _meaning(values: Records, epoch: int) -> NDArray[np.void]:
    """As frontend_at() in bpf/lib/service.h."""
    later = staged(values, epoch)
    found = np.zeros(len(values), FRONTEND_VALUE)
    found["service"] = np.where(later, values["previous"], values["service"])
    found["flags"] = np.where(later, values["previous_flags"], values["flags"])
    return found


def _to_map(family: _Family, keys: NDArray[np.void], map_: Map) -> Records:
    result = np.zeros(len(keys), map_.key_dtype)
    address = packed(keys)
    result["address"] = address[:, 12:].copy().view(np.uint32)[:, 0] if family.ipv4 else address
    result["port"] = from_network_order(keys["port"])
    result["protocol"], result["scope"] = keys["protocol"], keys["scope"]
    return result


def _from_map(family: _Family, keys: Records) -> NDArray[np.void]:
    result = np.zeros(len(keys), FRONTEND_KEY)
    result["high"], result["low"] = words_from(np.ascontiguousarray(keys["address"]), ipv4=family.ipv4)
    result["port"] = from_network_order(keys["port"])
    result["protocol"], result["scope"] = keys["protocol"], keys["scope"]
    return result
