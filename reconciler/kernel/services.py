"""Versions of services, as a table: the map `services`, their tables, and who may use them (bpf/lib/service.h).

A version never changes; a change of a service is another one. It is complete before any frontend names it, and goes
once no packet is on its way that read a frontend which did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import numpy as np

from reconciler.bpf.maps import Records
from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation
from reconciler.kernel.service_sources import ServiceSources
from reconciler.kernel.service_tables import Backends, ServiceTables
from reconciler.model.balancing import Algorithm, ServiceRow, WhenNone
from reconciler.model.maglev import size_of

_MAP = "services"
_ALGORITHMS = (Algorithm.MAGLEV, Algorithm.RANDOM)  # by enum service_algorithm
_DROP = 1  # SERVICE_DROP

Sources = tuple[IPv4Network | IPv6Network, ...]


class ServicesTable:
    name = _MAP
    after: tuple[str, ...] = ("programs", "backends")
    key_type: type = int
    row_type: type = ServiceRow

    def __init__(self, pinned: PinnedMaps, generation: Generation) -> None:
        self._maps = pinned
        self._generation = generation
        self._tables = ServiceTables(pinned)
        self._sources = ServiceSources(pinned)
        self._leaving = False
        self.flip: Flip | None = generation

    def live(self, only: Collection[Key] | None = None) -> DictRows:
        """Waits for rows that the last flip takes away. A row whose table is not its own shows no backends."""
        if self._leaving:
            self._generation.settle()
            self._leaving = False
        map_ = self._maps.find(_MAP)
        if not map_:
            return DictRows({})
        if only is None:
            numbers, values = map_.read()
            tables = self._tables.live()
        else:
            numbers = _numbers(only)
            found, values = map_.lookup(numbers)
            numbers, values = numbers[found], values[found]
            tables = self._tables.live(numbers)
        sources = self._sources.live()
        columns = (values[name].tolist() for name in ("name", "affinity_s", "slots", "backends", "algorithm", "flags"))
        return DictRows(
            {
                number: _row(tables.get(number), sources.get(number, ()), *said)
                for number, said in zip(numbers.tolist(), zip(*columns, strict=True), strict=True)
            }
        )

    def write(self, upserts: Mapping[Key, ServiceRow], deletes: Collection[Key]) -> None:
        """Between the flip's `begin` and `flip`, once."""
        map_ = self._maps.open(_MAP) if upserts else self._maps.find(_MAP)
        if not map_:
            return
        self._tables.enter({number: row.backends for number, row in upserts.items() if row.backends})
        self._tables.remove(_numbers([number for number, row in upserts.items() if not row.backends]))
        self._sources.become({number: row.sources for number, row in upserts.items()})
        map_.update(_numbers(upserts), _values(list(upserts.values()), map_.value_dtype))
        if deletes:
            gone = _numbers(deletes)
            self._generation.stage(partial(map_.delete, gone))
            self._generation.stage(partial(self._tables.remove, gone))
            self._generation.stage(partial(self._sources.become, dict.fromkeys(deletes, ())))
            self._leaving = True

    def keys_of(self, name: str, raw: bytes) -> list[int]:
        """Keys of rows for keys as they lie in the map of this name, one behind the other."""
        keys = np.frombuffer(raw, self._maps.open(name).key_dtype)
        numbers = keys["service"] if keys.dtype.names else keys
        return [int(number) for number in numbers]


def _numbers(keys: Collection[Key]) -> Records:
    return np.fromiter(keys, np.uint32, len(keys))


def _row(
    backends: Backends | None,
    sources: Sources,
    name: int,
    affinity_s: int,
    slots: int,
    count: int,
    algorithm: int,
    flags: int,
) -> ServiceRow:
    """What we would never write shows a name of 0, which nobody wants."""
    there = backends or ()
    odd = (
        count != len(there)
        or slots != (size_of(count) if count else 0)
        or algorithm >= len(_ALGORITHMS)
        or flags & ~_DROP
    )
    return ServiceRow(
        0 if odd else name,
        there,
        _ALGORITHMS[0 if algorithm >= len(_ALGORITHMS) else algorithm],
        affinity_s,
        WhenNone.DROP if flags & _DROP else WhenNone.REFUSE,
        sources,
    )


def _values(rows: list[ServiceRow], dtype: np.dtype[Any]) -> Records:
    values = np.zeros(len(rows), dtype)
    values["name"] = [row.name for row in rows]
    values["affinity_s"] = [row.affinity_s for row in rows]
    values["slots"] = [size_of(len(row.backends)) if row.backends else 0 for row in rows]
    values["backends"] = [len(row.backends) for row in rows]
    values["algorithm"] = [_ALGORITHMS.index(row.algorithm) for row in rows]
    values["flags"] = [_DROP if row.when_none is WhenNone.DROP else 0 for row in rows]
    return values
