"""Addresses of a node's workloads, out of the node's CIDRs.

A workload keeps its address until it is released. Addresses that nobody had come first, in order; then those that were
released, the longest ago first: an address is not taken for its last owner's by whoever still remembers it.

Several processes may allocate at once, even for one workload. An allocation ends when a read shows that it is as
wanted: of two addresses that two processes took for a workload, the one that was taken first stays.

    .../addresses/<node>/<address>    the workload, or that it was released; the revision tells when
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import islice
from random import Random
from typing import NamedTuple
from urllib.parse import quote

from reconciler.engine.remembered import Remembered
from reconciler.errors import CompileError, StoreError
from reconciler.store.protocol import ABSENT, Item, Store, root

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network
Pair = tuple[IPv4Address | None, IPv6Address | None]

KEPT_RELEASED = 4096  # of each family: in a large CIDR released addresses would pile up for ever
ATTEMPTS = 64
MOST_SPREAD = 1023


@dataclass(frozen=True, slots=True)
class _Record:
    """`workload` is '' for a released address."""

    workload: str
    revision: int


_Records = Mapping[IpAddress, _Record]


class Allocation(NamedTuple):
    """What workloads get, what has to be written for it (as in `_write`), and what that replaces."""

    pairs: Mapping[str, Pair]
    changes: Mapping[IpAddress, str | None]
    replaced: _Records


class Addresses:
    """Allocation for the workloads of one node.

    excluded    addresses that are in use by others, the host's own say
    avoided     are not drawn; who asks for one, or has it, gets it
    """

    def __init__(
        self,
        store: Store,
        node: str,
        cidr4: IPv4Network | None,
        cidr6: IPv6Network | None,
        *,
        cluster: str = "default",
        excluded: Collection[IpAddress] = (),
        avoided: Collection[IpAddress] = (),
        rng: Random | None = None,
        section: str = "addresses",
        memory: Remembered[Allocation] | None = None,
    ) -> None:
        """`rng` decides who takes which address when several ask at once; `section`: below which keys they stand.

        `memory`, for who allocates again and again: what follows from records that are as they were is known.
        """
        self._store = store
        self._rng = rng or Random()
        self._lock = threading.Lock()  # threads would only meet in the store, and ask again
        self._node = node
        self._cidrs: tuple[IpNetwork | None, IpNetwork | None] = (cidr4, cidr6)
        self._prefix = f"{root(cluster)}{section}/{quote(node, safe='')}/"
        self._excluded = frozenset(excluded)
        self._avoided = frozenset(avoided)
        self._bounds = (self._prefix, self._cidrs, self._excluded, self._avoided)
        self._memory = memory or Remembered()

    def allocate(self, workloads: Iterable[str], fixed: Mapping[str, Pair] | None = None) -> dict[str, Pair]:
        """workload -> its addresses, one for each CIDR of the node, for all of its `workloads`.

        `fixed` asks for certain addresses (None: any); one that belongs to a workload that is not among `workloads`
        changes hands. An address outside the CIDRs as they are now is replaced. Writes nothing where nothing is new,
        and otherwise once (a store with small transactions: once for so many addresses), and reads again.
        Raises CompileError, having written nothing, when a CIDR is used up or a fixed address cannot be given.
        """
        wanted, asked = list(dict.fromkeys(workloads)), dict(fixed or {})
        with self._lock:
            for attempt in range(ATTEMPTS):
                inputs = (self._store.range(self._prefix).items, wanted, asked, attempt)
                found = self._memory.get((*inputs, *self._bounds), partial(self._allocation, *inputs))
                if not found.changes:
                    return dict(found.pairs)
                self._write(found.changes, found.replaced)
        raise StoreError(
            f"addresses of {self._node}: {ATTEMPTS} attempts to allocate met other writers", remedy="try again"
        )

    def release(self, workloads: Iterable[str]) -> None:
        """Give back all addresses of these workloads; success where they have none."""
        gone = set(workloads)
        for _ in range(ATTEMPTS):
            records = self._records()
            released = {address: "" for address, record in records.items() if record.workload in gone}
            forgotten = dict.fromkeys(_oldest_released(records), None)
            if self._write({**released, **forgotten}, records):
                return
        raise StoreError(
            f"addresses of {self._node}: {ATTEMPTS} attempts to release met other writers", remedy="try again"
        )

    def held(self) -> dict[IpAddress, str]:
        """address -> workload."""
        return {address: record.workload for address, record in self._records().items() if record.workload}

    def _records(self) -> dict[IpAddress, _Record]:
        return self._read(self._store.range(self._prefix).items)

    def _read(self, items: Iterable[Item]) -> dict[IpAddress, _Record]:
        return dict(_read(item, self._prefix) for item in items)

    def _allocation(
        self, items: Iterable[Item], wanted: Collection[str], fixed: Mapping[str, Pair], attempt: int
    ) -> Allocation:
        records, spread = self._read(items), min(4**attempt - 1, MOST_SPREAD)
        first, second = (
            self._choose(wanted, {ref: pair[place] for ref, pair in fixed.items()}, cidr, records, spread)
            for place, cidr in enumerate(self._cidrs)
        )
        changes = _changes(wanted, [*first.items(), *second.items()], records)
        return Allocation(
            {ref: _pair(first.get(ref), second.get(ref)) for ref in wanted},
            changes,
            {address: records[address] for address in changes if address in records},
        )

    def _choose(
        self,
        wanted: Iterable[str],
        fixed: Mapping[str, IpAddress | None],
        cidr: IpNetwork | None,
        records: _Records,
        spread: int,
    ) -> dict[str, IpAddress]:
        """workload -> address of this family: first those asked for, then those they have, then free ones."""
        if cidr is None:
            return {}
        asked = {ref: address for ref in wanted if (address := fixed.get(ref)) is not None}
        held = self._held_in(cidr, records)
        self._check_fixed(asked, {ref: held[ref] for ref in wanted if ref in held}, cidr)
        chosen = {ref: asked.get(ref) or held.get(ref) for ref in wanted}
        missing = [ref for ref, address in chosen.items() if address is None]
        busy = {*(address for address, record in records.items() if record.workload), *asked.values(), *self._avoided}
        free = self._drawn(cidr, records, busy, len(missing), spread)
        if len(free) < len(missing):
            used = sum(address in cidr for address in busy)
            raise CompileError(
                f"{cidr} of {self._node} is used up: {used} addresses are in use, {len(missing)} more are "
                f"wanted, {len(free)} are free",
                remedy="give the node a larger CIDR, or fewer workloads",
            )
        given = dict(zip(missing, free, strict=True))
        return {ref: address if address is not None else given[ref] for ref, address in chosen.items()}

    def _held_in(self, cidr: IpNetwork, records: _Records) -> dict[str, IpAddress]:
        """workload -> its address; of several the one that was taken first."""
        held: dict[str, IpAddress] = {}
        for address, record in sorted(records.items(), key=lambda one: (one[1].revision, int(one[0]))):
            if record.workload and address in cidr and self._usable(address, cidr):
                held.setdefault(record.workload, address)
        return held

    def _drawn(
        self, cidr: IpNetwork, records: _Records, busy: Collection[IpAddress], count: int, spread: int
    ) -> list[IpAddress]:
        """The next `count` free addresses; with `spread` so many more are looked at, and some are drawn by lot.

        One that was released is drawn only where those that nobody had do not suffice.
        """
        if not count:
            return []
        free = list(islice(self._free(cidr, records, busy), count + spread))
        unused = [address for address in free if address not in records]
        candidates = unused if len(unused) >= count else free
        if not spread or len(candidates) <= count:
            return candidates[:count]
        return self._rng.sample(candidates, count)

    def _check_fixed(self, asked: Mapping[str, IpAddress], held: Mapping[str, IpAddress], cidr: IpNetwork) -> None:
        """`held` are the addresses of the workloads that stay: they are not taken away."""
        owners = {address: ref for ref, address in held.items() if ref not in asked}
        for ref, address in asked.items():
            if address not in cidr or not self._usable(address, cidr):
                raise CompileError(f"{ref} asks for {address}, which {cidr} of {self._node} cannot give")
            other = owners.setdefault(address, ref)
            if other != ref:
                raise CompileError(f"{ref} asks for {address}, which {other} has")

    def _usable(self, address: IpAddress, cidr: IpNetwork) -> bool:
        """Not the network's own address (in IPv6 the routers' anycast, RFC 4291 section 2.6.1), nor the broadcast."""
        if address in self._excluded:
            return False
        if cidr.max_prefixlen - cidr.prefixlen < 2:  # RFC 3021, RFC 6164: such networks have neither
            return True
        return address != cidr.network_address and (address.version == 6 or address != cidr.broadcast_address)

    def _free(self, cidr: IpNetwork, records: _Records, busy: Collection[IpAddress]) -> Iterator[IpAddress]:
        """Never used ones in order, then released ones, the longest ago first."""
        for offset in range(cidr.num_addresses):
            address = cidr[offset]
            if address not in records and address not in busy and self._usable(address, cidr):
                yield address
        released = [
            (record.revision, int(address), address)
            for address, record in records.items()
            if not record.workload and address in cidr and address not in busy and self._usable(address, cidr)
        ]
        yield from (address for _, _, address in sorted(released))

    def _write(self, changes: Mapping[IpAddress, str | None], records: _Records) -> bool:
        """address -> workload, '' for released, None to forget."""
        listed = list(changes.items())
        for start in range(0, len(listed), self._store.max_writes):
            part = listed[start : start + self._store.max_writes]
            keys = {address: f"{self._prefix}{address}" for address, _ in part}
            expected = {
                keys[address]: records[address].revision if address in records else ABSENT for address, _ in part
            }
            writes = {keys[address]: _written(workload) for address, workload in part}
            if not self._store.transact(expected, writes):
                return False
        return True


def _changes(
    wanted: Collection[str], chosen: Iterable[tuple[str, IpAddress]], records: _Records
) -> dict[IpAddress, str | None]:
    """What has to be written so that the `wanted` workloads have exactly the `chosen` addresses."""
    given = {address: ref for ref, address in chosen}
    mine = set(wanted)
    changes: dict[IpAddress, str | None] = {
        address: ""
        for address, record in records.items()
        if record.workload in mine and given.get(address) != record.workload
    }
    changes |= {
        address: ref for address, ref in given.items() if address not in records or records[address].workload != ref
    }
    return changes


def _pair(first: IpAddress | None, second: IpAddress | None) -> Pair:
    assert not isinstance(first, IPv6Address)
    assert not isinstance(second, IPv4Address)
    return first, second


def _oldest_released(records: _Records) -> Iterator[IpAddress]:
    for version in (4, 6):
        released = sorted(
            (record.revision, int(address), address)
            for address, record in records.items()
            if not record.workload and address.version == version
        )
        yield from (address for _, _, address in released[: max(0, len(released) - KEPT_RELEASED)])


def _written(workload: str | None) -> bytes | None:
    return None if workload is None else json.dumps({"workload": workload}).encode()


def _read(item: Item, prefix: str) -> tuple[IpAddress, _Record]:
    try:
        return ip_address(item.key.removeprefix(prefix)), _Record(json.loads(item.value)["workload"], item.revision)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{item.key} in the store is not an address: {error}") from error
