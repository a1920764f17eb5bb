"""Local workloads by address, as a table: the maps `endpoints4` and `endpoints6` (bpf/lib/endpoints.h).

The maps know devices by index, rows by name; names are resolved in the namespace that the process is in. A row is the
way to a workload: without it no packet is handed over, whatever its verdict, so the table is a gate.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import cast

import numpy as np

from reconciler.bpf.maps import Records
from reconciler.engine.rows import DictRows, Key, Row
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.model.datapath import EndpointKey, EndpointRow

_MAPS = {4: "endpoints4", 6: "endpoints6"}
_NUMBERED = "#"  # starts the name of a device that is gone: its index follows


class EndpointsTable:
    name = "endpoints"
    after: tuple[str, ...] = ("links", "programs")
    key_type: type = EndpointKey  # type: ignore[assignment]  # a union, as the plan's JSON needs it
    row_type: type = EndpointRow
    flip: Flip | None = None
    gate = True

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """`ifname` is `#N` where no device has index N."""
        rows: dict[Key, EndpointRow] = {}
        names: dict[int, str] = {}
        for version, map_name in _MAPS.items():
            if map_ := self._maps.find(map_name):
                keys = None if only is None else _of(version, only)
                rows.update(_rows(map_, version, keys, names))
        return DictRows(rows)

    def write(self, upserts: Mapping[Key, EndpointRow], deletes: Collection[Key]) -> None:
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
                value["ifindex"], value["identity"] = indices[row.ifname], row.identity
                value["mac"] = np.frombuffer(bytes.fromhex(row.mac.replace(":", "")), np.uint8)
            map_.update(_keys(map_, wanted), values)

    def is_same_way(self, before: Row, after: Row) -> bool:
        """The identity is what other hosts are told, in packets that were judged already."""
        old, new = cast(EndpointRow, before), cast(EndpointRow, after)
        return (old.ifname, old.mac) == (new.ifname, new.mac)

    def keys_of(self, map_name: str, raw: bytes) -> list[EndpointKey]:
        """Keys of rows for keys as they lie in one of the maps, one behind the other."""
        (version,) = (version for version, name in _MAPS.items() if name == map_name)
        length = 4 if version == 4 else 16
        return [_address(version, raw[start : start + length]) for start in range(0, len(raw), length)]


def _of(version: int, keys: Collection[Key]) -> list[EndpointKey]:
    """Those of one IP version."""
    return [key for key in cast(Collection[EndpointKey], keys) if key.version == version]


def _rows(
    map_: Map, version: int, only: list[EndpointKey] | None, names: dict[int, str]
) -> dict[EndpointKey, EndpointRow]:
    if only is None:
        keys, values = map_.read()
        addresses = [_address(version, key.tobytes()) for key in keys]
    else:
        found, values = map_.lookup(_keys(map_, only))
        addresses, values = [only[index] for index in np.flatnonzero(found)], values[found]
    return {
        address: EndpointRow(
            device_name(int(value["ifindex"]), names), value["mac"].tobytes().hex(":"), int(value["identity"])
        )
        for address, value in zip(addresses, values, strict=True)
    }


def _keys(map_: Map, addresses: list[EndpointKey]) -> Records:
    return np.frombuffer(b"".join(address.packed for address in addresses), map_.key_dtype)


def _address(version: int, packed: bytes) -> EndpointKey:
    return IPv4Address(packed) if version == 4 else IPv6Address(packed)


def device_name(index: int, names: dict[int, str]) -> str:
    """`#N` where no device has the index; `names` are those that are known."""
    if index not in names:
        try:
            names[index] = socket.if_indextoname(index)
        except OSError:
            names[index] = f"{_NUMBERED}{index}"
    return names[index]


def device_index(name: str) -> int:
    """Raises KernelError if there is no such device."""
    if name.startswith(_NUMBERED):
        return int(name.removeprefix(_NUMBERED))
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise KernelError(f"no device {name}", errno=error.errno or 0) from error
