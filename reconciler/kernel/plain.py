"""CIDRs that workloads talk to with their own addresses, as a table: the tries `plain4` and `plain6`.

Layout: bpf/lib/devices.h. Without a row an address is outside, and workloads are masqueraded towards it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import cast

import numpy as np

from reconciler.bpf.maps import Records
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.model.outside import PlainKey, PlainRow

_MAPS = {4: "plain4", 6: "plain6"}


class PlainTable:
    name = "plain"
    after: tuple[str, ...] = ("programs",)
    key_type: type = PlainKey  # type: ignore[assignment]  # a union, as the plan's JSON needs it
    row_type: type = PlainRow
    flip: Flip | None = None

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        rows: dict[Key, PlainRow] = {}
        for version, name in _MAPS.items():
            if map_ := self._maps.find(name):
                rows.update({_network(version, key): PlainRow() for key in map_.read()[0]})
        return DictRows({key: row for key, row in rows.items() if only is None or key in only})

    def write(self, upserts: Mapping[Key, PlainRow], deletes: Collection[Key]) -> None:
        for version, name in _MAPS.items():
            wanted, gone = _of(version, upserts), _of(version, deletes)
            if not wanted and not (gone and self._maps.find(name)):
                continue
            map_ = self._maps.open(name)
            map_.delete(_keys(map_, gone))
            map_.update(_keys(map_, wanted), np.ones(len(wanted), map_.value_dtype))


def _of(version: int, keys: Collection[Key]) -> list[PlainKey]:
    return [key for key in cast(Collection[PlainKey], keys) if key.version == version]


def _keys(map_: Map, networks: list[PlainKey]) -> Records:
    packed = b"".join(np.uint32(one.prefixlen).tobytes() + one.network_address.packed for one in networks)
    return np.frombuffer(packed, map_.key_dtype)


def _network(version: int, key: np.void) -> PlainKey:
    raw = key.tobytes()
    length = int.from_bytes(raw[:4], sys.byteorder)
    if version == 4:
        return IPv4Network((IPv4Address(raw[4:]), length))
    return IPv6Network((IPv6Address(raw[4:]), length))
