"""The way to workloads of other nodes, as a table: the maps `tunnels4` and `tunnels6` (bpf/lib/tunnels.h).

What programs write into the maps, the measured MTU, is no part of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import AF_INET, AF_INET6
from typing import cast

import numpy as np

from reconciler.bpf.maps import Records
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.kernel.endpoints import device_index, device_name
from reconciler.model.datapath import TunnelKey, TunnelRow

_MAPS = {4: "tunnels4", 6: "tunnels6"}
_FAMILIES = {4: AF_INET, 6: AF_INET6}
_LENGTHS = {4: 4, 6: 16}


class TunnelsTable:
    name = "tunnels"
    after: tuple[str, ...] = ("overlays", "programs")
    key_type: type = TunnelKey  # type: ignore[assignment]  # a union, as the plan's JSON needs it
    row_type: type = TunnelRow
    flip: Flip | None = None

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """`ifname` is `#N` where no device has index N."""
        rows: dict[Key, TunnelRow] = {}
        names: dict[int, str] = {}
        for version, map_name in _MAPS.items():
            if map_ := self._maps.find(map_name):
                rows.update((key, row) for key, row in _rows(map_, version, names) if only is None or key in only)
        return DictRows(rows)

    def write(self, upserts: Mapping[Key, TunnelRow], deletes: Collection[Key]) -> None:
        """Raises KernelError for a device that is not there, before anything is written."""
        indices = {name: device_index(name) for name in {row.ifname for row in upserts.values()}}
        for version, map_name in _MAPS.items():
            wanted, gone = _of(version, upserts), _of(version, deletes)
            if not wanted and (not gone or not self._maps.find(map_name)):
                continue
            map_ = self._maps.open(map_name)
            map_.delete(_keys(map_, gone))
            values = np.zeros(len(wanted), map_.value_dtype)
            for value, row in zip(values, (upserts[key] for key in wanted), strict=True):
                value["ifindex"] = indices[row.ifname]
                value["family"], value["here"] = _FAMILIES[row.remote.version], row.remote == row.local
                value["remote"], value["local"] = _packed(row.remote), _packed(row.local)
                value["cluster"] = row.cluster
            map_.update(_keys(map_, wanted), values)

    def keys_of(self, map_name: str, raw: bytes) -> list[TunnelKey]:
        """Keys of rows for keys as they lie in one of the maps, one behind the other."""
        keys = np.frombuffer(raw, self._maps.open(map_name).key_dtype)
        (version,) = (version for version, name in _MAPS.items() if name == map_name)
        return [_network(version, key) for key in keys]


def _of(version: int, keys: Collection[Key]) -> list[TunnelKey]:
    return [key for key in cast(Collection[TunnelKey], keys) if key.version == version]


def _rows(map_: Map, version: int, names: dict[int, str]) -> Iterator[tuple[TunnelKey, TunnelRow]]:
    for key, value in zip(*map_.read(), strict=True):
        family = 4 if value["family"] == AF_INET else 6
        remote, local = _address(family, value["remote"]), _address(family, value["local"])
        ifname, cluster = device_name(int(value["ifindex"]), names), int(value["cluster"])
        yield _network(version, key), TunnelRow(ifname, remote, local, cluster)


def _keys(map_: Map, networks: list[TunnelKey]) -> Records:
    keys = np.zeros(len(networks), map_.key_dtype)
    for key, network in zip(keys, networks, strict=True):
        packed = network.network_address.packed
        key["prefixlen"] = network.prefixlen
        key["address"] = np.frombuffer(packed, key["address"].dtype.base).reshape(key["address"].shape)
    return keys


def _network(version: int, key: np.void) -> TunnelKey:
    return ip_network((key["address"].tobytes(), int(key["prefixlen"])))


def _packed(address: IPv4Address | IPv6Address) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(address.packed.ljust(16, b"\0"), np.uint8)


def _address(version: int, value: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> IPv4Address | IPv6Address:
    return ip_address(value.tobytes()[: _LENGTHS[version]])
