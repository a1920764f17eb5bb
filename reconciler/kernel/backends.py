"""Backends of services, as a table: the map `backends` (bpf/lib/service.h).

An id never means another address and port, so a row comes before any version of a service names it, and goes once no
packet is on its way that read such a version.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf.maps import Records
from reconciler.engine.rows import Columns
from reconciler.engine.table import Flip
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.kernel.generation import Generation
from reconciler.kernel.service_addresses import from_network_order, is_mapped, packed, words_from
from reconciler.model.balancing import BACKEND_KEY, BACKEND_VALUE, BackendFlag

_MAP = "backends"
_ADDRESS_BYTES = 16


class BackendsTable:
    name = _MAP
    after: tuple[str, ...] = ("programs",)
    key_dtype = BACKEND_KEY
    value_dtype = BACKEND_VALUE

    def __init__(self, pinned: PinnedMaps, generation: Generation) -> None:
        self._maps = pinned
        self._generation = generation
        self._leaving = False
        self.flip: Flip | None = generation

    def live(self, only: NDArray[np.void] | None = None) -> Columns:
        """Waits for rows that the last flip takes away."""
        if self._leaving:
            self._generation.settle()
            self._leaving = False
        map_ = self._maps.find(_MAP)
        if not map_:
            return Columns(np.empty(0, BACKEND_KEY), np.empty(0, BACKEND_VALUE))
        if only is None:
            return Columns(*_from_map(*map_.read()))
        numbers = np.ascontiguousarray(only["id"])
        found, values = map_.lookup(numbers)
        return Columns(*_from_map(numbers[found], values[found]))

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        map_ = self._maps.open(_MAP) if len(upserts) else self._maps.find(_MAP)
        if not map_:
            return
        map_.update(np.ascontiguousarray(upserts.keys["id"]), _to_map(upserts.values, map_))
        if len(deletes):
            self._generation.stage(partial(map_.delete, np.ascontiguousarray(deletes["id"])))
            self._leaving = True

    def keys_of(self, raw: bytes) -> NDArray[np.void]:
        """Keys of rows for keys as they lie in the map, one behind the other."""
        return np.frombuffer(raw, BACKEND_KEY)


def _to_map(rows: NDArray[np.void], map_: Map) -> Records:
    address = packed(rows).copy()
    mapped = is_mapped(rows)
    address[mapped, :4] = address[mapped, 12:]
    address[mapped, 4:] = 0
    values = np.zeros(len(rows), map_.value_dtype)
    values["address"] = address.reshape(-1).view(f"V{_ADDRESS_BYTES}") if len(rows) else values["address"]
    values["port"] = from_network_order(rows["port"])
    values["protocol"], values["flags"] = rows["protocol"], rows["flags"]
    return values


def _from_map(numbers: Records, values: Records) -> tuple[NDArray[np.void], NDArray[np.void]]:
    keys, rows = np.zeros(len(numbers), BACKEND_KEY), np.zeros(len(numbers), BACKEND_VALUE)
    keys["id"] = numbers
    octets = np.ascontiguousarray(values["address"]).view(np.uint8).reshape(-1, _ADDRESS_BYTES)
    ipv4 = values["flags"] & BackendFlag.V6 == 0
    high, low = words_from(octets, ipv4=False)
    _, low4 = words_from(np.ascontiguousarray(octets[:, :4]).view(np.uint32)[:, 0], ipv4=True)
    rows["high"], rows["low"] = np.where(ipv4, np.uint64(0), high), np.where(ipv4, low4, low)
    rows["port"] = from_network_order(values["port"])
    rows["protocol"], rows["flags"], rows["pad"] = values["protocol"], values["flags"], values["pad"]
    return keys, rows
