"""Identities by address, as a table: exact addresses in hashes, prefixes in LPM tries (bpf/lib/ipcache.h).

Rows are written ahead of the flip. Until then a row carries its old meaning too: `previous` counts before the epoch
`since`, `identity` from it on, and 0 means that there is no row. In a trie a row that is not there yet, or no longer,
would hide the shorter prefix that covers it, and so it borrows that one's meaning. Rows that only somebody else changed
are put right where they are.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf.maps import LPM_TRIE, Records
from reconciler.engine.distinct import distinct
from reconciler.engine.rows import Columns
from reconciler.engine.table import Flip
from reconciler.kernel import ipcache_rows
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.kernel.fingerprint import of_ipcache
from reconciler.kernel.generation import Generation, Version, next_epoch
from reconciler.kernel.ipcache_rows import (
    BORROWED,
    FAMILIES,
    Family,
    Meaning,
    by_family,
    covers,
    from_map,
    lengths,
    meaning,
    plain_flags,
    rows_of,
    to_map,
)
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE


class IpcacheTable:
    name = "ipcache"
    after: tuple[str, ...] = ("programs", "endpoints")
    key_dtype = IPCACHE_KEY
    value_dtype = IPCACHE_VALUE
    state_pays_from = 50_000  # a sum walks through every bucket of the maps, 20 ms

    def __init__(self, pinned: PinnedMaps, generation: Generation) -> None:
        self._maps = pinned
        self._generation = generation
        self.flip: Flip | None = generation
        generation.join(self)

    def live(self, only: NDArray[np.void] | None = None) -> Columns:
        """What counts for packets now; what is staged is not in it. `only`: 2 us a key."""
        epoch = self._generation.current.epoch
        asked = [(family, None) for family in FAMILIES] if only is None else _parts_of(only)
        parts = [_live(map_, family, epoch, keys) for family, keys in asked if (map_ := self._maps.find(family.map))]
        if not parts:
            return Columns(np.empty(0, IPCACHE_KEY), np.empty(0, IPCACHE_VALUE))
        return Columns(np.concatenate([part.keys for part in parts]), np.concatenate([part.values for part in parts]))

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        """Between the flip's `begin` and `flip`, once."""
        epoch = self._generation.current.epoch
        for family, wanted, gone in _by_family(upserts, deletes):
            if not len(wanted) and not self._maps.find(family.map):
                continue
            map_ = self._maps.open(family.map)
            keys = to_map(family, gone, map_.key_dtype)
            self._generation.stage(partial(map_.delete, keys))
            _stage_upserts(map_, to_map(family, wanted.keys, map_.key_dtype), wanted.values, epoch)
            _stage_deletes(map_, keys, epoch)

    def mend(self, upserts: Columns, deletes: NDArray[np.void]) -> bool:
        """Put rows right that somebody else changed, at once and without a flip. False: that takes a write."""
        epoch = self._generation.settled_epoch
        if not epoch:
            return False
        for family, wanted, gone in _by_family(upserts, deletes):
            map_ = self._maps.open(family.map)
            map_.delete(to_map(family, gone, map_.key_dtype))
            _put(map_, to_map(family, wanted.keys, map_.key_dtype), wanted.values, epoch)
        self._generation.advance()
        return True

    def keys_of(self, map_name: str, raw: bytes) -> NDArray[np.void]:
        """Keys of rows for keys as they lie in one of the maps, one behind the other."""
        (family,) = (family for family in FAMILIES if family.map == map_name)
        return from_map(family, np.frombuffer(raw, self._maps.open(map_name).key_dtype))

    def state(self) -> bytes | None:
        """Exact addresses are summed up in the kernel, prefixes are read; what rows mean depends on the epoch."""
        exact = of_ipcache(self._maps.root)
        if exact is None:
            return None
        digest = blake2b(exact + b"%d" % self._generation.current.epoch, digest_size=16)
        for family in FAMILIES:
            if not family.exact and (map_ := self._maps.find(family.map)):
                for records in map_.read():
                    digest.update(np.ascontiguousarray(records).tobytes())
        return digest.digest()

    def discard(self, version: Version) -> None:
        """Rows that wait for a flip become what they were; rows without a meaning of their own go. Reads every row."""
        for family in FAMILIES:
            if map_ := self._maps.find(family.map):
                _settle(map_, version.epoch)


def _parts_of(keys: NDArray[np.void]) -> list[tuple[Family, NDArray[np.void] | None]]:
    return [(family, keys[index]) for family, index in by_family(keys)]


def _by_family(upserts: Columns, deletes: NDArray[np.void]) -> list[tuple[Family, Columns, NDArray[np.void]]]:
    """What a write means for each family that it concerns."""
    wanted = {family: upserts.take(index) for family, index in by_family(upserts.keys)}
    gone = {family: deletes[index] for family, index in by_family(deletes)}
    nothing = upserts.take(slice(0, 0))
    concerned = (family for family in FAMILIES if family in wanted or family in gone)
    return [(family, wanted.get(family, nothing), gone.get(family, deletes[:0])) for family in concerned]


def _live(map_: Map, family: Family, epoch: int, only: NDArray[np.void] | None) -> Columns:
    keys, values = _every(map_) if only is None else _among(map_, to_map(family, only, map_.key_dtype))
    says = meaning(values, epoch)
    there = np.flatnonzero(says.is_own)
    rows = np.zeros(len(there), IPCACHE_VALUE)
    rows["identity"] = says.identity[there]
    rows["flags"] = plain_flags(map_, keys[there], says.flags[there])
    return Columns(from_map(family, keys[there]), rows)


def _every(map_: Map) -> tuple[Records, Records]:
    """As `_among` shows them: a stranger's copy of the row that covers it, which no lookup tells apart, is left out."""
    keys, values = map_.read()
    strange = np.flatnonzero(values["flags"] & ~np.uint16(ipcache_rows.FLAGS | BORROWED) != lengths(map_, keys))
    hidden = strange[~rows_of(map_, keys[strange])[0]]
    return np.delete(keys, hidden), np.delete(values, hidden)


def _among(map_: Map, keys: Records) -> tuple[Records, Records]:
    found, values = rows_of(map_, keys)
    return keys[found], values[found]


def _put(map_: Map, keys: Records, wanted: NDArray[np.void], epoch: int) -> None:
    """Rows that mean the same at every epoch."""
    values = np.zeros(len(keys), map_.value_dtype)
    values["identity"], values["flags"] = wanted["identity"], wanted["flags"] | lengths(map_, keys)
    values["previous"], values["previous_flags"], values["since"] = values["identity"], values["flags"], epoch
    map_.update(keys, values)


def _stage_upserts(map_: Map, keys: Records, wanted: NDArray[np.void], epoch: int) -> None:
    found, old = rows_of(map_, keys)
    before = _before(map_, keys, found, old, epoch)
    values = np.zeros(len(keys), map_.value_dtype)
    values["previous"], values["previous_flags"] = before.identity, before.flags
    values["identity"], values["flags"] = wanted["identity"], wanted["flags"] | lengths(map_, keys)
    values["since"] = next_epoch(epoch)
    map_.update(keys, values)


def _before(map_: Map, keys: Records, found: NDArray[np.bool_], old: Records, epoch: int) -> Meaning:
    """What new values must mean until the flip: what the rows mean, or where there is none, what covers them."""
    now = meaning(old, epoch)
    identity, flags = np.where(found, now.identity, np.uint32(0)), np.where(found, now.flags, np.uint16(0))
    if map_.info.kind == LPM_TRIE:
        missing = np.flatnonzero(~found)
        cover = _borrowed(map_, keys[missing], epoch)
        identity[missing], flags[missing] = cover.identity, cover.flags
    return Meaning(identity, flags)


def _stage_deletes(map_: Map, keys: Records, epoch: int) -> None:
    """Shorter prefixes first: what covers a row may be going as well, and then it has borrowed a meaning by now."""
    keys, old = _among(map_, keys)
    length = lengths(map_, keys)
    for step in distinct(length):
        part = np.flatnonzero(length == step)
        now = meaning(old[part], epoch)
        values = np.zeros(len(part), map_.value_dtype)
        values["previous"], values["previous_flags"], values["since"] = now.identity, now.flags, next_epoch(epoch)
        if map_.info.kind == LPM_TRIE:
            cover = _borrowed(map_, keys[part], next_epoch(epoch))
            values["identity"], values["flags"] = cover.identity, cover.flags
        map_.update(keys[part], values)


def _borrowed(map_: Map, keys: Records, epoch: int) -> Meaning:
    """What covers these prefixes, at an epoch, as a row has it that borrows it."""
    found, values = covers(map_, keys)
    says = meaning(values, epoch)
    flags = says.flags & np.uint16(ipcache_rows.FLAGS) | lengths(map_, keys) | np.uint16(BORROWED)
    return Meaning(np.where(found, says.identity, np.uint32(0)), flags)


def _settle(map_: Map, epoch: int) -> None:
    keys, values = map_.read()
    now = meaning(values, epoch)
    waiting = np.flatnonzero(now.is_own & ipcache_rows.staged(values, epoch))
    again = values[waiting]
    again["identity"], again["flags"], again["since"] = now.identity[waiting], now.flags[waiting], epoch
    map_.update(keys[waiting], again)
    map_.delete(keys[~now.is_own])
