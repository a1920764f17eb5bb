"""Rows of single services as the rows of all of them: in columns, each once, no two of one key.

Numbers of backends and versions are drawn by hash; where two draw the same one, both draw again (numbering.py), which
is the only thing that services have to do with each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.numbering import hashed, number
from reconciler.compile.service_versions import IDS, Served, backend_name, version_text
from reconciler.engine.distinct import distinct
from reconciler.errors import CompileError
from reconciler.model.balancing import (
    BACKEND_KEY,
    BACKEND_VALUE,
    FRONTEND_KEY,
    FRONTEND_VALUE,
    ServiceRow,
    address_of,
)
from reconciler.model.facts import BackendKey
from reconciler.model.origin import Origin
from reconciler.model.service import Service

_BACKEND_RECORD = np.dtype(BACKEND_KEY.descr + BACKEND_VALUE.descr)
_MEANING = ("high", "low", "port", "protocol")  # what an id stands for


class Joined(NamedTuple):
    """Rows of all services, without origins. `*_of`: the place of the service that each row comes from."""

    frontend_keys: NDArray[np.void]
    frontend_values: NDArray[np.void]
    frontend_of: NDArray[np.int32]
    rows: dict[int, ServiceRow]
    row_of: Sequence[int]
    backend_keys: NDArray[np.void]
    backend_values: NDArray[np.void]
    backend_of: NDArray[np.int32]


class Draws(NamedTuple):
    """`redrawn`: ids of backends whose first draw another one had too; `contested`: the services with such backends."""

    redrawn: tuple[tuple[BackendKey, int], ...] = ()
    contested: Sequence[int] = ()


def draws(results: Sequence[Served]) -> Draws:
    """Of results with first draws."""
    records, of = _records(results)
    numbers, counts = np.unique(records["id"], return_counts=True)
    shared, _ = _merged(records[np.isin(records["id"], numbers[counts > 1])])
    ids, meanings = np.unique(shared["id"], return_counts=True)
    twice = ids[meanings > 1]
    if not len(twice):
        return Draws()
    redrawn = _redrawn(shared[np.isin(shared["id"], twice)], set(numbers.tolist()))
    return Draws(tuple(redrawn.items()), distinct(of[np.isin(records["id"], twice)]).tolist())


def _records(results: Sequence[Served]) -> tuple[NDArray[np.void], NDArray[np.intp]]:
    """Every backend of every service, and the place of that."""
    records = np.frombuffer(b"".join(one.backends for one in results), _BACKEND_RECORD)
    counts = [len(one.backends) // _BACKEND_RECORD.itemsize for one in results]
    return records, np.repeat(np.arange(len(results)), counts)


def join(results: Sequence[Served], services: Sequence[Service]) -> Joined:
    """`results` have no two backends of one id; `services`: whose they are.

    Raises CompileError for two frontends of one key.
    """
    rows, row_of, ids = _versions(results)
    fronts = [(key, flags, ids[place][at]) for place, one in enumerate(results) for key, flags, at in one.frontends]
    _refuse_clashes([key for key, _, _ in fronts], results, services)
    values = np.zeros(len(fronts), FRONTEND_VALUE)
    values["service"] = [number for _, _, number in fronts]
    values["flags"] = [flags for _, flags, _ in fronts]
    records, of = _records(results)
    merged, first = _merged(records)
    return Joined(
        np.frombuffer(b"".join(key for key, _, _ in fronts), FRONTEND_KEY),
        values,
        np.repeat(np.arange(len(results)), [len(one.frontends) for one in results]).astype(np.int32),
        rows,
        row_of,
        _part(merged, BACKEND_KEY),
        _part(merged, BACKEND_VALUE),
        of[first].astype(np.int32),
    )


def _versions(results: Sequence[Served]) -> tuple[dict[int, ServiceRow], list[int], list[list[int]]]:
    """id -> row, the service that each comes from, and for each service the ids of its versions."""
    rows: dict[int, ServiceRow] = {}
    row_of: list[int] = []
    for place, one in enumerate(results):
        for drawn, row in one.versions:
            if rows.setdefault(drawn, row) is row:
                row_of.append(place)
            elif rows[drawn] != row:
                return _versions_apart(results)
    return rows, row_of, [[drawn for drawn, _ in one.versions] for one in results]


def _versions_apart(results: Sequence[Served]) -> tuple[dict[int, ServiceRow], list[int], list[list[int]]]:
    """The same where two versions drew one number: one in a thousand times with 3,000 of them."""
    drawn = number((version_text(row) for one in results for _, row in one.versions), IDS)
    ids = [[drawn[version_text(row)] + 1 for _, row in one.versions] for one in results]
    rows: dict[int, ServiceRow] = {}
    of: dict[int, int] = {}
    for place, one in enumerate(results):
        for drawn_id, (_, row) in zip(ids[place], one.versions, strict=True):
            rows.setdefault(drawn_id, row)
            of.setdefault(drawn_id, place)
    return rows, list(of.values()), ids


def _merged(records: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.intp]]:
    """Each backend once, in the order of ids and addresses, with the flags of all; and where each was first."""
    order = np.argsort(records["id"], kind="stable")
    ordered = records[order]
    apart, begins = _differing(ordered, ("id",)), _differing(ordered, ("id", *_MEANING))
    if (apart != begins).any():  # rows of one id that mean different things must stand together too
        order = np.lexsort([records[name] for name in (*_MEANING, "id")])
        ordered = records[order]
        begins = _differing(ordered, ("id", *_MEANING))
    starts = np.flatnonzero(begins)
    merged = ordered[starts]
    if len(starts):
        merged["flags"] = np.bitwise_or.reduceat(ordered["flags"], starts)
    return merged, order[starts]


def _differing(ordered: NDArray[np.void], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows differ from the one before; the first does."""
    differs = np.ones(len(ordered), np.bool_)
    differs[1:] = False
    for name in names:
        differs[1:] |= ordered[name][1:] != ordered[name][:-1]
    return differs


def _redrawn(contested: NDArray[np.void], drawn: set[int]) -> dict[BackendKey, int]:
    """Ids of those whose first number another one has too, as in numbering.number(); `drawn`: all first ones."""
    keys = {backend_name(key): key for key in map(_backend_key, contested)}
    waiting, attempt = sorted(keys), 1
    found: dict[BackendKey, int] = {}
    while waiting:
        claims: defaultdict[int, list[str]] = defaultdict(list)
        for name in waiting:
            claims[hashed(name, attempt) % IDS + 1].append(name)
        alone = {names[0]: claim for claim, names in claims.items() if len(names) == 1 and claim not in drawn}
        found |= {keys[name]: claim for name, claim in alone.items()}
        drawn |= claims.keys()
        waiting, attempt = [name for name in waiting if name not in alone], attempt + 1
    return found


def _backend_key(record: np.void) -> BackendKey:
    return address_of(int(record["high"]), int(record["low"])), int(record["port"]), int(record["protocol"])


def _part(records: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    part = np.zeros(len(records), dtype)
    for name in dtype.names or ():
        part[name] = records[name]
    return part


def _refuse_clashes(keys: Sequence[bytes], results: Sequence[Served], services: Sequence[Service]) -> None:
    if len(set(keys)) == len(keys):
        return
    owners: dict[bytes, Service] = {}
    for one, service in zip(results, services, strict=True):
        for key, _, _ in one.frontends:
            if key in owners:
                raise CompileError(_clash(key, service, owners[key].origin))
            owners[key] = service


def _clash(key: bytes, service: Service, other: Origin) -> str:
    (record,) = np.frombuffer(key, FRONTEND_KEY)
    address = address_of(int(record["high"]), int(record["low"]))
    return f"{service.origin}: port {record['port']} of {address} is already a frontend of {other}"
