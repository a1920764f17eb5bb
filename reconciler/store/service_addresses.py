"""Addresses of services inside the cluster and their node ports: the same on all hosts.

A service keeps what it got, even while it is away: hosts may be at different commits, and one that does not know a
service yet, or knows it still, must not decide over it. What is kept for those that are away goes to others only once
nothing else is left. Addresses are allocated as those of workloads are (addresses.py). All node ports stand in one key:
there are few thousand of them at most.

    .../service-addresses/services-4/<address>    the service
    .../node-ports                                service port -> number

Unlike addresses of other nodes' workloads, every host's mirror keeps both: a host goes on while the store is away.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

from reconciler.engine.remembered import Remembered
from reconciler.errors import CompileError, StoreError
from reconciler.store.addresses import Addresses, Allocation
from reconciler.store.protocol import ABSENT, Store, root

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network
Pair = tuple[IPv4Address | None, IPv6Address | None]
ATTEMPTS = 64


class ServiceAddresses:
    """Of one family; `cidr` is of that family. `avoided`: not chosen, as services have them for the outside."""

    def __init__(
        self,
        store: Store,
        cidr: IpNetwork,
        cluster: str,
        avoided: Collection[IpAddress] = (),
        memory: Remembered[Allocation] | None = None,
    ) -> None:
        """`memory`: as of Addresses."""
        four, six = (cidr, None) if isinstance(cidr, IPv4Network) else (None, cidr)
        name, section = f"services-{cidr.version}", "service-addresses"
        self._addresses = Addresses(
            store, name, four, six, cluster=cluster, section=section, avoided=avoided, memory=memory
        )

    def allocate(self, wanted: Mapping[str, IpAddress | None]) -> dict[str, IpAddress]:
        """service -> address; a value asks for a certain one, which must be inside the CIDR. Raises CompileError."""
        fixed = {name: self._pair(address) for name, address in wanted.items() if address is not None}
        try:
            found = self._addresses.allocate(wanted, fixed)
        except CompileError:
            found = self._allocate_with_those_of_absent(wanted, fixed)
        return {name: one for name, pair in found.items() for one in pair if one is not None}

    def _allocate_with_those_of_absent(
        self, wanted: Mapping[str, IpAddress | None], fixed: Mapping[str, Pair]
    ) -> dict[str, Pair]:
        self._addresses.release(set(self._addresses.held().values()) - wanted.keys())
        try:
            return self._addresses.allocate(wanted, fixed)
        except CompileError as error:
            raise CompileError(f"services: {error}", remedy="give the Cluster larger services.cidrs") from error

    def _pair(self, address: IpAddress) -> Pair:
        return (address, None) if isinstance(address, IPv4Address) else (None, address)


class NodePorts:
    """`first`, `last`: what they are chosen from, but for `avoided`: protocols and ports that nodes' addresses have."""

    def __init__(
        self,
        store: Store,
        first: int,
        last: int,
        cluster: str,
        rng: Random | None = None,
        *,
        avoided: Collection[tuple[int, int]] = (),
    ) -> None:
        self._store = store
        self._range = range(first, last + 1)
        self._key = f"{root(cluster)}node-ports"
        self._rng = rng or Random()
        self._avoided = frozenset(avoided)

    def allocate(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """service port (`port_name` in model/facts.py) -> number. `wanted`: the number that is asked for, or 0.

        Writes nothing where nothing is new. Raises CompileError if there are too few.
        """
        for _ in range(ATTEMPTS):
            held, revision = self._read()
            chosen = self._choose(wanted, held)
            if chosen == held or self._store.transact({self._key: revision}, {self._key: _written(chosen)}):
                return {name: chosen[name] for name in wanted}
        raise StoreError(f"node ports: {ATTEMPTS} attempts to allocate met other writers", remedy="try again")

    def _choose(self, wanted: Mapping[str, int], held: Mapping[str, int]) -> dict[str, int]:
        """Those that are asked for, then those that are held, then free ones; of absent services what is left."""
        chosen = {name: number for name, number in wanted.items() if number}
        taken = set(map(_claim, chosen.items()))
        for present in (True, False):
            for name, number in held.items():
                usable = number in self._range and (_protocol(name), number) not in taken
                if (name in wanted) is present and name not in chosen and usable:
                    chosen[name] = number
                    taken.add((_protocol(name), number))
        for name in wanted:
            if name not in chosen:
                self._give(name, chosen, wanted)
        return chosen

    def _give(self, name: str, chosen: dict[str, int], wanted: Collection[str]) -> None:
        """A free one, drawn by lot, so that one which somebody had before is hardly the next; or an absent one's."""
        owners = {number: other for other, number in chosen.items() if _protocol(other) == _protocol(name)}
        usable = [number for number in self._range if (_protocol(name), number) not in self._avoided]
        free = [number for number in usable if number not in owners]
        if not free:
            absent = [number for number, other in owners.items() if number in self._range and other not in wanted]
            if not absent:
                raise CompileError(
                    f"no node port is left for {name}: {self._range[0]} to {self._range[-1]} are in use",
                    remedy="give the Cluster more services.nodePorts, or set allocateLoadBalancerNodePorts: false",
                )
            free = absent[:1]
            del chosen[owners[free[0]]]
        chosen[name] = self._rng.choice(free)

    def _read(self) -> tuple[dict[str, int], int]:
        item = self._store.get(self._key)
        if item is None:
            return {}, ABSENT
        try:
            return {str(name): int(number) for name, number in json.loads(item.value).items()}, item.revision
        except (ValueError, AttributeError, TypeError) as error:
            raise StoreError(f"{self._key} in the store is no list of node ports: {error}") from error


def _written(ports: Mapping[str, int]) -> bytes:
    return json.dumps(ports, sort_keys=True).encode()


def _claim(port: tuple[str, int]) -> tuple[int, int]:
    return _protocol(port[0]), port[1]


def _protocol(name: str) -> int:
    """Of `default/web 80/6`."""
    return int(name.rpartition("/")[2])
