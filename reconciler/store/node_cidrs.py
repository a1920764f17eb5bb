"""CIDRs of nodes: those that their manifests say, and others out of the cluster's pools. No two ever overlap.

A claim rewrites one key that all claims share, so they are made one after the other, each knowing all before it. The
search for a free CIDR goes on after the last that was handed out: one that was given back is not the next.

    .../node-cidrs/turn             the last CIDR of each family that was handed out
    .../node-cidrs/nodes/<node>     the node's CIDRs
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from random import Random
from urllib.parse import quote, unquote

from reconciler.errors import CompileError, StoreError
from reconciler.model.cluster import Pool
from reconciler.store.protocol import ABSENT, Item, Store, root

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network
Pair = tuple[IPv4Network | None, IPv6Network | None]

FAMILIES = (4, 6)
ATTEMPTS = 64
LONGEST_WAIT_S = 0.5  # between two attempts


@dataclass(frozen=True, slots=True)
class _Claims:
    """What was read at once: family -> CIDR for each node, the turn, and the revision of either."""

    nodes: Mapping[str, Mapping[int, Network]]
    turn: Mapping[int, Network]
    turn_revision: int


class NodeCidrs:
    """Allocation for the nodes of one cluster. `wait` is what a claim does that met another one."""

    def __init__(
        self,
        store: Store,
        pools: Sequence[Pool],
        cluster: str = "default",
        *,
        wait: Callable[[float], None] = time.sleep,
        rng: Random | None = None,
    ) -> None:
        self._store = store
        self._pools: dict[int, Pool] = {pool.cidr.version: pool for pool in pools}
        self._prefix = f"{root(cluster)}node-cidrs/"
        self._wait = wait
        self._rng = rng or Random()

    def allocate(
        self, node: str, given: Pair = (None, None), others: Mapping[str, Iterable[Network]] | None = None
    ) -> Pair:
        """The node's CIDRs: `given` by its manifest, else what it has in the pool, else new ones of the pool.

        None for a family with neither. `others`: node -> CIDRs that manifests give, which are not handed out whether
        their nodes have claimed them or not. Writes nothing where nothing is new.
        Raises CompileError if a given CIDR overlaps another node's, or a pool is used up.
        """
        manifests = {name: tuple(networks) for name, networks in (others or {}).items() if name != node}
        for attempt in range(ATTEMPTS):
            claims = self._read()
            chosen = self._choose(node, given, manifests, claims)
            if chosen == claims.nodes.get(node, {}) or self._claim(node, chosen, given, claims):
                return _pair(chosen)
            self._wait(self._rng.uniform(0, min(LONGEST_WAIT_S, 0.005 * 2**attempt)))
        raise StoreError(f"the CIDRs of {node}: {ATTEMPTS} attempts met those of other nodes", remedy="try again")

    def release(self, nodes: Iterable[str]) -> None:
        """Give back what these nodes have; success where they have none."""
        for node in nodes:
            self._store.delete(self._key(node))

    def held(self) -> dict[str, Pair]:
        """node -> its CIDRs; without claims that cannot be read, which the log names."""
        found = {}
        for item in self._store.range(f"{self._prefix}nodes/").items:
            try:
                found[unquote(item.key.rpartition("/")[2])] = _pair(_networks(item))
            except StoreError as error:
                log.warning("not believed: %s", error)
        return found

    def _read(self) -> _Claims:
        items = {item.key: item for item in self._store.range(self._prefix).items}
        turn = items.pop(f"{self._prefix}turn", None)
        nodes = {unquote(key.rpartition("/")[2]): _networks(item) for key, item in items.items()}
        return _Claims(nodes, _networks(turn) if turn else {}, turn.revision if turn else ABSENT)

    def _choose(
        self, node: str, given: Pair, manifests: Mapping[str, Sequence[Network]], claims: _Claims
    ) -> dict[int, Network]:
        chosen: dict[int, Network] = {}
        for family, wanted in zip(FAMILIES, given, strict=True):
            taken = {name: networks[family] for name, networks in claims.nodes.items() if family in networks}
            held = taken.pop(node, None)
            pool = self._pools.get(family)
            if wanted is not None:
                chosen[family] = _require_free(node, wanted, taken)
            elif pool and held is not None and _inside(held, pool.cidr):
                chosen[family] = held
            elif pool:
                fixed = [one for networks in manifests.values() for one in networks if one.version == family]
                chosen[family] = _next_free(pool, [*taken.values(), *fixed], claims.turn.get(family))
        return chosen

    def _claim(self, node: str, chosen: Mapping[int, Network], given: Pair, claims: _Claims) -> bool:
        held: Mapping[int, Network] = claims.nodes.get(node, {})
        drawn = {family: one for family, one in chosen.items() if one not in given and one != held.get(family)}
        writes = {
            f"{self._prefix}turn": _written({**claims.turn, **drawn}),
            self._key(node): _written(chosen) if chosen else None,
        }
        return self._store.transact({f"{self._prefix}turn": claims.turn_revision}, writes)

    def _key(self, node: str) -> str:
        return f"{self._prefix}nodes/{quote(node, safe='')}"


def _require_free(node: str, wanted: Network, taken: Mapping[str, Network]) -> Network:
    for other, network in taken.items():
        if wanted.overlaps(network):
            raise CompileError(
                f"Node {node} is to have {wanted}, which overlaps {network} of Node {other}",
                remedy=f"give one of them another CIDR; if {other} is gone, remove its Node manifest",
            )
    return wanted


def _inside(network: Network, pool: Network) -> bool:
    first, last = int(pool.network_address), int(pool.broadcast_address)
    return first <= int(network.network_address) and int(network.broadcast_address) <= last


def _next_free(pool: Pool, taken: Sequence[Network], last: Network | None) -> Network:
    """The first one after `last` that overlaps none of `taken`, or the first of all."""
    first, end = int(pool.cidr.network_address), int(pool.cidr.broadcast_address)
    after = int(last.broadcast_address) + 1 if last and _inside(last, pool.cidr) else first
    start = _gap(pool, taken, after, end)
    if start is None:
        start = _gap(pool, taken, first, end)
    if start is None:
        raise CompileError(
            f"pool {pool.cidr} is used up: no CIDR of /{pool.node_prefix} is free for another node",
            remedy="give the Cluster a larger pool or a longer nodePrefix, or remove manifests of Nodes that are gone",
        )
    return ip_network((start, pool.node_prefix))


def _gap(pool: Pool, taken: Sequence[Network], start: int, end: int) -> int | None:
    """Where the first free CIDR at or after `start` begins. O(n log n), whatever the pool's size."""
    size = 1 << (pool.cidr.max_prefixlen - pool.node_prefix)
    candidate = -(-start // size) * size
    for network in sorted(taken, key=lambda one: int(one.network_address)):
        if int(network.network_address) >= candidate + size:
            break
        if int(network.broadcast_address) >= candidate:
            candidate = (int(network.broadcast_address) // size + 1) * size
    return candidate if candidate + size - 1 <= end else None


def _pair(networks: Mapping[int, Network]) -> Pair:
    first, second = networks.get(4), networks.get(6)
    assert not isinstance(first, IPv6Network)
    assert not isinstance(second, IPv4Network)
    return first, second


def _written(networks: Mapping[int, Network]) -> bytes:
    return json.dumps([str(networks[family]) for family in sorted(networks)]).encode()


def _networks(item: Item) -> dict[int, Network]:
    try:
        found = [ip_network(text) for text in json.loads(item.value)]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{item.key} in the store is not a list of CIDRs: {error}") from error
    return {network.version: network for network in found}
