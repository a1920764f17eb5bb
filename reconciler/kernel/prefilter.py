"""Who gets no answer at all, as a table: the tries `prefilter4` and `prefilter6` (bpf/lib/prefilter.h).

A trie answers with the longest match, so a row's value is its length, by which it is told from what covers it. Rows
come before programs that look at them, and CIDRs that replace others before those go: nobody slips in between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf.maps import Records
from reconciler.engine.rows import Columns
from reconciler.engine.table import Flip
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.kernel.ipcache_rows import Family, covers, from_map, to_map
from reconciler.model.prefilter import PREFILTER_KEY, PREFILTER_VALUE, is_ipv4

_FAMILIES = (Family("prefilter4", ipv4=True, exact=False), Family("prefilter6", ipv4=False, exact=False))


class PrefilterTable:
    name = "prefilter"
    after: tuple[str, ...] = ("programs",)
    key_dtype = PREFILTER_KEY
    value_dtype = PREFILTER_VALUE
    flip: Flip | None = None

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps

    def live(self, only: NDArray[np.void] | None = None) -> Columns:
        parts = [self._live(family, only) for family in _FAMILIES]
        return Columns(np.concatenate([keys for keys, _ in parts]), np.concatenate([values for _, values in parts]))

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        for family in _FAMILIES:
            wanted = np.flatnonzero(is_ipv4(upserts.keys) == family.ipv4)
            gone = deletes[is_ipv4(deletes) == family.ipv4]
            if not len(wanted) and not (len(gone) and self._maps.find(family.map)):
                continue
            map_ = self._maps.open(family.map)
            map_.update(
                to_map(family, upserts.keys[wanted], map_.key_dtype),
                np.ascontiguousarray(upserts.values["length"][wanted]).astype(map_.value_dtype),
            )
            map_.delete(to_map(family, gone, map_.key_dtype))

    def keys_of(self, name: str, raw: bytes) -> NDArray[np.void]:
        """Keys of rows for keys as they lie in the map of this name, one behind the other."""
        (family,) = (one for one in _FAMILIES if one.map == name)
        return from_map(family, np.frombuffer(raw, self._maps.open(name).key_dtype))

    def _live(self, family: Family, only: NDArray[np.void] | None) -> tuple[NDArray[np.void], NDArray[np.void]]:
        map_ = self._maps.find(family.map)
        if not map_:
            return np.empty(0, PREFILTER_KEY), np.empty(0, PREFILTER_VALUE)
        if only is None:
            keys, lengths = map_.read()
        else:
            keys, lengths = _there(map_, to_map(family, only[is_ipv4(only) == family.ipv4], map_.key_dtype))
        values = np.zeros(len(keys), PREFILTER_VALUE)
        values["length"] = lengths
        return from_map(family, keys), values


def _there(map_: Map, keys: Records) -> tuple[Records, Records]:
    """Keys that have a row of their own, and its value."""
    found, lengths = map_.lookup(keys)
    unsure = np.flatnonzero(found & (lengths != keys["prefixlen"]))
    covered, theirs = covers(map_, keys[unsure])
    found[unsure] = ~covered | (lengths[unsure] != theirs)
    return keys[found], lengths[found]
