"""The endpoints that other hosts announced, as columns that follow the store key by key.

One that changes costs a few microseconds, whatever the number of the others; what a compile gets is a copy.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.errors import StoreError
from reconciler.model.cluster import NamedPort
from reconciler.model.facts import REMOTE_ROW, RemoteEndpoints
from reconciler.model.origin import Origin
from reconciler.store.announcements import Announcement, announcement_of, named_by
from reconciler.store.protocol import Item

log = logging.getLogger(__name__)

MAPPED = 0xFFFF << 32  # RFC 4291 section 2.5.5.2
WORD = (1 << 64) - 1
FIRST_ROOM = 64
_FAMILIES = (4, 6)


class RemoteTable:
    """`prefix` comes before the names of nodes: `cluster/` for those of another cluster. `but`: a node to leave out."""

    def __init__(self, but: str = "", prefix: str = "") -> None:
        self._but = but
        self._prefix = prefix
        self._place: dict[str, int] = {}  # key -> its endpoint
        self._free: list[int] = []
        self._rows = np.zeros((FIRST_ROOM, len(_FAMILIES)), REMOTE_ROW)
        self._there = np.zeros((FIRST_ROOM, len(_FAMILIES)), np.bool_)
        self._revision = np.zeros(FIRST_ROOM, np.int64)
        self._names: list[str] = []
        self._nodes: list[str] = []
        self._origins: list[Origin] = []
        self._ports: list[frozenset[NamedPort]] = [frozenset()]
        self._claims: defaultdict[int, int] = defaultdict(int)  # address -> how many have it
        self._contested = 0
        self._spelled: dict[str, str] = {}  # texts that many share, once

    def __len__(self) -> int:
        """Endpoints."""
        return len(self._place)

    def replace(self, items: Iterable[Item]) -> None:
        """Exactly these."""
        there = {item.key: item for item in items}
        self.update({**dict.fromkeys(self._place.keys() - there.keys()), **there})

    def update(self, changed: Mapping[str, Item | None]) -> None:
        """None: the key is gone. What cannot be read counts as gone, and the log says so."""
        for key, item in changed.items():
            node, name = named_by(key)
            if node == self._but:
                continue
            self._remove(key)
            if item is None:
                continue
            try:
                announced = announcement_of(item)
            except StoreError as error:
                log.warning("not understood: %s", error)
                continue
            self._add(key, self._prefix + node, name, announced, item.revision)

    def columns(self) -> RemoteEndpoints:
        """As it is now; of several endpoints with one address the one that was announced last."""
        rows = self._rows[self._there]
        if self._contested:
            order = np.lexsort((self._revision[rows["endpoint"]], rows["low"], rows["high"]))
            rows = rows[order]
            last = np.ones(len(rows), np.bool_)
            last[:-1] = (rows["high"][:-1] != rows["high"][1:]) | (rows["low"][:-1] != rows["low"][1:])
            rows = rows[last]
        return RemoteEndpoints(rows, (*self._names,), (*self._nodes,), (*self._origins,), (*self._ports,))

    def _add(self, key: str, node: str, name: str, announced: Announcement, revision: int) -> None:
        place = self._free.pop() if self._free else self._new_place()
        self._place[key] = place
        self._names[place], self._nodes[place] = name, self._once(node)
        self._origins[place] = Origin(
            self._once(announced.path), announced.line, "Workload", name, self._once(announced.commit)
        )
        self._revision[place] = revision
        ports = self._port_set(announced.ports)
        for address in announced.addresses:
            row = self._rows[place, _FAMILIES.index(address.version)]
            value = in_full(address)
            row["high"], row["low"] = value >> 64, value & WORD
            row["identity"], row["endpoint"], row["ports"] = announced.identity, place, ports
            self._there[place, _FAMILIES.index(address.version)] = True
            self._claims[value] += 1
            self._contested += self._claims[value] == 2

    def _remove(self, key: str) -> None:
        place = self._place.pop(key, None)
        if place is None:
            return
        for row, is_there in zip(self._rows[place], self._there[place], strict=True):
            if is_there:
                self._unclaim(int(row["high"]) << 64 | int(row["low"]))
        self._there[place] = False
        self._free.append(place)

    def _unclaim(self, value: int) -> None:
        self._contested -= self._claims[value] == 2
        self._claims[value] -= 1
        if not self._claims[value]:
            del self._claims[value]

    def _new_place(self) -> int:
        place = len(self._names)
        if place == len(self._revision):
            self._rows, self._there = _doubled(self._rows), _doubled(self._there)
            self._revision = _doubled(self._revision)
        nobody = Origin("", 0, "", "", "")
        self._names.append("")
        self._nodes.append("")
        self._origins.append(nobody)
        return place

    def _port_set(self, ports: frozenset[NamedPort]) -> int:
        if ports not in self._ports:
            self._ports.append(ports)
        return self._ports.index(ports)

    def _once(self, text: str) -> str:
        return self._spelled.setdefault(text, text)


def joined(parts: Iterable[RemoteEndpoints]) -> RemoteEndpoints:
    """Those of several clusters; of two with one address the first part's."""
    every = [part for part in parts if len(part)]
    if len(every) <= 1:
        return every[0] if every else RemoteEndpoints()
    rows: list[NDArray[np.void]] = []
    names: list[str] = []
    nodes: list[str] = []
    origins: list[Origin] = []
    ports: list[frozenset[NamedPort]] = []
    for part in every:
        moved = part.rows.copy()
        moved["endpoint"] += len(names)
        moved["ports"] += len(ports)
        rows.append(moved)
        names += part.names
        nodes += part.nodes
        origins += part.origins
        ports += part.ports
    return RemoteEndpoints(_first_of_each(np.concatenate(rows)), names, nodes, origins, ports)


def _first_of_each(rows: NDArray[np.void]) -> NDArray[np.void]:
    order = np.lexsort((np.arange(len(rows)), rows["low"], rows["high"]))
    ordered = rows[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = (ordered["high"][1:] != ordered["high"][:-1]) | (ordered["low"][1:] != ordered["low"][:-1])
    return rows[np.sort(order[first])]


def _doubled(array: Any) -> Any:
    return np.concatenate([array, np.zeros_like(array)])


def in_full(address: IPv4Address | IPv6Address) -> int:
    """All 128 bits."""
    return int(address) | MAPPED if address.version == 4 else int(address)
