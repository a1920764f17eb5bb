"""Node devices as a table: the map `devices` (bpf/lib/devices.h), which knows them by index, rows by name."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import cast

import numpy as np

from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.model.outside import DeviceFlag, DeviceRow

_NUMBERED = "#"  # starts the name of a device that is gone: its index follows


class DevicesTable:
    name = "devices"
    after: tuple[str, ...] = ("programs", "plain", "overlays")
    key_type: type = str
    row_type: type = DeviceRow
    flip: Flip | None = None

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """A device that is gone is called `#N`, N its index."""
        if not (map_ := self._maps.find("devices")):
            return DictRows({})
        keys, values = map_.read()
        rows: dict[Key, DeviceRow] = {}
        for index, value in zip(keys.tolist(), values, strict=True):
            name = _name(index)
            if only is None or name in only:
                four, six = value["address4"].tobytes(), value["address6"].tobytes()
                rows[name] = DeviceRow(
                    DeviceFlag(int(value["flags"])),
                    IPv4Address(four) if any(four) else None,
                    IPv6Address(six) if any(six) else None,
                )
        return DictRows(rows)

    def write(self, upserts: Mapping[Key, DeviceRow], deletes: Collection[Key]) -> None:
        """Raises KernelError for a device that is not there, before anything is written."""
        wanted = np.array([_index(cast(str, name)) for name in upserts], np.uint32)
        gone = np.array([index for name in deletes if (index := _index(cast(str, name), missing=0))], np.uint32)
        if not len(wanted) and not (len(gone) and self._maps.find("devices")):
            return
        map_ = self._maps.open("devices")
        map_.delete(gone)
        values = np.zeros(len(wanted), map_.value_dtype)
        for value, row in zip(values, upserts.values(), strict=True):
            value["flags"] = int(row.flags)
            if row.address4:
                value["address4"] = np.frombuffer(row.address4.packed, np.uint32)[0]
            if row.address6:
                value["address6"] = np.frombuffer(row.address6.packed, np.uint8)
        map_.update(wanted, values)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"{_NUMBERED}{index}"


def _index(name: str, missing: int | None = None) -> int:
    if name.startswith(_NUMBERED):
        return int(name.removeprefix(_NUMBERED))
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        if missing is not None:
            return missing
        raise KernelError(f"no device {name}", errno=error.errno or 0) from error
