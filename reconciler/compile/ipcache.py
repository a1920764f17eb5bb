"""The identity of every address that this host may see.

The longest prefix decides. Addresses of workloads and nodes are exact rows, so they win over any CIDR that rules name;
the rest of the world has the two defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.budget import Budget, check_ipcache
from reconciler.compile.members import FIRST_REFINED, MAPPED_LOW, WORD, Member
from reconciler.compile.networks import WORLD, IpAddress, IpNetwork
from reconciler.engine.match import match, words
from reconciler.engine.rows import Columns
from reconciler.errors import CompileError
from reconciler.model.cluster import Cluster, Node, Workload
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE, IpcacheFlag
from reconciler.model.facts import Facts, Peer, RemoteEndpoints
from reconciler.model.identity import FIRST_LOCAL, Reserved
from reconciler.model.origin import Origin
from reconciler.model.overlay import reserved
from reconciler.model.snapshot import Snapshot

MAPPED_BITS = 96


class CacheRow(NamedTuple):
    """`value` and `bits` of 128: the prefix."""

    value: int
    bits: int
    identity: int
    flags: int


class Records(NamedTuple):
    """Rows as the map has them."""

    keys: NDArray[np.void]
    values: NDArray[np.void]


class Table(NamedTuple):
    """Every row but for its origin: those of members, then those of the others that are in `kept` (indexes)."""

    keys: NDArray[np.void]
    values: NDArray[np.void]
    kept: Sequence[int]


def member_rows(members: Sequence[Member], host_addresses: Collection[IpAddress]) -> Records:
    """Of every address of a workload. Raises CompileError if a workload has an address of this host."""
    own = {(address.version, int(address)) for address in host_addresses}
    rows = []
    for _, address, identity, workload, local in members:
        value, version = int(address), address.version
        if (version, value) in own:
            raise CompileError(f"{workload.origin}: {address} of {workload.reference} is an address of the host itself")
        full = value | MAPPED_LOW if version == 4 else value
        rows.append(CacheRow(full, 128, identity, _flags(workload) if local else 0))
    return _records(rows)


def _flags(workload: Workload) -> IpcacheFlag:
    return IpcacheFlag.LOCAL | IpcacheFlag.AUDIT if workload.audit else IpcacheFlag.LOCAL


def other_rows(
    snapshot: Snapshot, facts: Facts, cidrs: Mapping[IpNetwork, int], origins: Mapping[IpNetwork, Origin]
) -> list[tuple[CacheRow, Origin]]:
    """Of this host, the other nodes, CIDRs (CIDR -> identity) and the world. `origins`: of CIDRs that rules name.

    A CIDR within one of this host's own is the host too.
    """
    rows = list(_nodes(snapshot, facts))
    homes = {cidr: node.origin for node in neighbours(snapshot, facts) for cidr in (node.cidr4, node.cidr6)}
    wide = [own for own in facts.host_networks if own.prefixlen < own.max_prefixlen]
    rows += [
        (_row(network, number), origins.get(network) or homes[network])
        for network, number in cidrs.items()
        if not any(own.version == network.version and network.subnet_of(cast(Any, own)) for own in wide)
    ]
    rows += [(_row(network, kind), snapshot.cluster.origin) for network, kind in WORLD.items()]
    return rows


def table(members: Records, others: Sequence[CacheRow], budget: Budget) -> Table:
    """Of rows with the same prefix the first stays: an address of a workload or a node is nothing else.

    Raises CompileError over the budget.
    """
    first: dict[tuple[int, int], int] = {}
    for place, row in enumerate(others):
        first.setdefault((row.value, row.bits), place)
    places = [*first.values()]
    keys, values = _records([others[place] for place in places])
    free = np.flatnonzero(match(words(keys), words(members.keys)) < 0)
    check_ipcache({"addresses of workloads": len(members.keys), "nodes, and CIDRs of rules": len(free)}, budget)
    return Table(
        np.concatenate([members.keys, keys[free]]),
        np.concatenate([members.values, values[free]]),
        [places[one] for one in free],
    )


def columns(found: Table, members: Iterable[Origin], others: Sequence[Origin]) -> Columns:
    """`members`, `others`: the origins of the rows that the table was made from."""
    origins = (*members, *(others[place] for place in found.kept))
    return Columns(found.keys, found.values, origins, np.arange(len(origins), dtype=np.int32))


def with_remote(known: Columns, remote: RemoteEndpoints, identities: NDArray[np.uint32], budget: Budget) -> Columns:
    """And the workloads of other hosts, `identities` of each row: addresses of workloads and nodes known here stay.

    Raises CompileError over the budget.
    """
    if not len(remote):
        return known
    keys, values = np.zeros(len(remote), IPCACHE_KEY), np.zeros(len(remote), IPCACHE_VALUE)
    keys["high"], keys["low"], keys["bits"] = remote.rows["high"], remote.rows["low"], 128
    values["identity"] = identities
    same = match(words(keys), words(known.keys))  # the row there that each would take the place of, or -1
    free = np.flatnonzero((same < 0) | _is_of_cidr(known.values["identity"])[same])
    staying = np.ones(len(known), np.bool_)
    staying[same[free][same[free] >= 0]] = False
    left = known.take(np.flatnonzero(staying))
    check_ipcache({"addresses of workloads of other hosts": len(free), "all else": len(left)}, budget)
    origin_of = remote.rows["endpoint"][free].astype(np.int32) + np.int32(len(known.origins))
    return Columns(
        np.concatenate([left.keys, keys[free]]),
        np.concatenate([left.values, values[free]]),
        (*known.origins, *remote.origins),
        np.concatenate([left.origin_of, origin_of]),
    )


def _is_of_cidr(identities: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """And not of a workload or a node."""
    local = (identities >= FIRST_LOCAL) & (identities < FIRST_REFINED)
    found: NDArray[np.bool_] = local | (identities == Reserved.UNMANAGED)
    return found


def _nodes(snapshot: Snapshot, facts: Facts) -> Iterator[tuple[CacheRow, Origin]]:
    """This host's own addresses before the other nodes'."""
    own = snapshot.nodes.get(facts.node)
    origin = own.origin if own else snapshot.cluster.origin
    among = partial(_addresses, snapshot.cluster)
    for address in sorted({*facts.host_addresses, *among(own)}, key=lambda ip: (ip.version, int(ip))):
        yield _row(address, Reserved.HOST, IpcacheFlag.HOST), origin
    for node in neighbours(snapshot, facts):
        for address in among(node):
            yield _row(address, Reserved.REMOTE_NODE), node.origin
    for network in sorted(facts.host_networks, key=lambda one: (one.version, one)):
        yield _row(network, Reserved.HOST, IpcacheFlag.HOST), origin


def neighbours(snapshot: Snapshot, facts: Facts) -> list[Node | Peer]:
    """The other nodes: what is known of them, or else what their manifests say."""
    silent = (node for name, node in snapshot.nodes.items() if name != facts.node and name not in facts.peers)
    return [*facts.peers.values(), *silent]


def _addresses(cluster: Cluster, node: Node | Peer | None) -> list[IpAddress]:
    """On the network between nodes, and among workloads."""
    if node is None:
        return []
    return [address for address in (node.address4, node.address6, *reserved(cluster, node)) if address is not None]


def _row(place: IpAddress | IpNetwork, identity: int, flags: int = 0) -> CacheRow:
    if isinstance(place, IPv4Network | IPv6Network):
        value, bits = int(place.network_address), place.prefixlen
    else:
        value, bits = int(place), place.max_prefixlen
    if place.version == 4:
        value, bits = value | MAPPED_LOW, bits + MAPPED_BITS
    return CacheRow(value, bits, identity, flags)


def _records(rows: Sequence[CacheRow]) -> Records:
    keys = np.zeros(len(rows), IPCACHE_KEY)
    keys["high"] = [row.value >> 64 for row in rows]
    keys["low"] = [row.value & WORD for row in rows]
    keys["bits"] = [row.bits for row in rows]
    values = np.zeros(len(rows), IPCACHE_VALUE)
    values["identity"] = [row.identity for row in rows]
    values["flags"] = [row.flags for row in rows]
    return Records(keys, values)
