"""The identity of every address that this host may see.

The longest prefix decides. Addresses of workloads and nodes are exact rows, so they win over any CIDR that rules name;
the rest of the world has the two defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import numpy as np

from reconciler.compile.budget import Budget, check_ipcache
from reconciler.compile.identities import WORLD, Identities, IpAddress, IpNetwork
from reconciler.engine.rows import Columns
from reconciler.errors import CompileError
from reconciler.model.cluster import Node, Workload
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE, IpcacheFlag
from reconciler.model.facts import Facts
from reconciler.model.identity import Reserved
from reconciler.model.origin import Origin
from reconciler.model.policy import CidrPeer, PolicyRule
from reconciler.model.snapshot import Snapshot

MAPPED_BITS = 96
MAPPED_LOW = 0xFFFF << 32  # ::ffff:0:0, RFC 4291 section 2.5.5.2
WORD = (1 << 64) - 1


class CacheRow(NamedTuple):
    value: int  # of the address, 128 bits
    bits: int
    identity: int
    flags: IpcacheFlag
    origin: Origin


def ipcache(
    snapshot: Snapshot, facts: Facts, known: Identities, rules: Iterable[PolicyRule], budget: Budget
) -> Columns:
    """`rules` are those that `known.networks` come from. Raises CompileError over the budget, or if a workload has an
    address of this host."""
    workloads = list(_workloads(snapshot.workloads, facts, known))
    nodes = list(_nodes(snapshot, facts, known))
    networks = list(_networks(known, rules))
    world = [_row(network, kind, IpcacheFlag(0), snapshot.cluster.origin) for network, kind in WORLD.items()]
    causes = {"workloads": len(workloads), "nodes": len(nodes), "CIDRs of rules": len(networks), "world": len(world)}
    check_ipcache(causes, budget)
    return _columns([*workloads, *nodes, *networks, *world])


def _workloads(workloads: Mapping[str, Workload], facts: Facts, known: Identities) -> Iterator[CacheRow]:
    for key, workload in workloads.items():
        endpoint = facts.endpoints.get(key)
        flags = IpcacheFlag.LOCAL if workload.node == facts.node else IpcacheFlag(0)
        for address in (endpoint.address4, endpoint.address6) if endpoint else ():
            if address is not None:
                _refuse_own(address, workload, facts)
                yield _row(address, known.addresses[address], flags, workload.origin)


def _refuse_own(address: IpAddress, workload: Workload, facts: Facts) -> None:
    if address in facts.host_addresses:
        raise CompileError(f"{workload.origin}: {address} of {workload.reference} is an address of {facts.node} itself")


def _nodes(snapshot: Snapshot, facts: Facts, known: Identities) -> Iterator[CacheRow]:
    """This host's own addresses, then the other nodes'; one that is also a workload's stays the workload's."""
    own = snapshot.nodes.get(facts.node)
    seen: set[IpAddress] = set(known.addresses)
    for address in sorted({*facts.host_addresses, *_addresses(own)} - seen, key=lambda ip: (ip.version, int(ip))):
        seen.add(address)
        yield _row(address, Reserved.HOST, IpcacheFlag.HOST, own.origin if own else snapshot.cluster.origin)
    for node in snapshot.nodes.values():
        for address in _addresses(node):
            if address not in seen:
                seen.add(address)
                yield _row(address, Reserved.REMOTE_NODE, IpcacheFlag(0), node.origin)


def _addresses(node: Node | None) -> list[IpAddress]:
    return [address for address in (node.address4, node.address6) if address is not None] if node else []


def _networks(known: Identities, rules: Iterable[PolicyRule]) -> Iterator[CacheRow]:
    """A CIDR of one address that is a workload's or a node's is left to it; see `_columns`."""
    origins: dict[IpNetwork, Origin] = {}
    for rule in rules:
        for item in rule.ingress + rule.egress:
            for peer in item.peers or ():
                for network in (peer.network, *peer.excepts) if isinstance(peer, CidrPeer) else ():
                    origins.setdefault(network, item.origin)
    for network, identity in known.networks.items():
        yield _row(network, identity, IpcacheFlag(0), origins[network])


def _row(place: IpAddress | IpNetwork, identity: int, flags: IpcacheFlag, origin: Origin) -> CacheRow:
    if isinstance(place, IPv4Network | IPv6Network):
        value, bits = int(place.network_address), place.prefixlen
    else:
        value, bits = int(place), place.max_prefixlen
    if place.version == 4:
        value, bits = value | MAPPED_LOW, bits + MAPPED_BITS
    return CacheRow(value, bits, identity, flags, origin)


def _columns(rows: Sequence[CacheRow]) -> Columns:
    """Of rows with the same key the first stays."""
    unique: dict[tuple[int, int], CacheRow] = {}
    for row in rows:
        unique.setdefault((row.value, row.bits), row)
    kept = unique.values()
    keys = np.zeros(len(kept), IPCACHE_KEY)
    keys["high"] = [row.value >> 64 for row in kept]
    keys["low"] = [row.value & WORD for row in kept]
    keys["bits"] = [row.bits for row in kept]
    values = np.zeros(len(kept), IPCACHE_VALUE)
    values["identity"] = [row.identity for row in kept]
    values["flags"] = [row.flags for row in kept]
    places: dict[int, int] = {}  # by id(): hashing an origin costs more than the rest of its row
    origin_of = np.array([places.setdefault(id(row.origin), len(places)) for row in kept], np.int32)
    origins = {id(row.origin): row.origin for row in kept}
    return Columns(keys, values, tuple(origins.values()), origin_of)
