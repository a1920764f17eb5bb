"""CIDRs of rules that hold addresses of workloads or of nodes, and do not match them.

A CIDR means addresses outside the cluster, an ipBlock may mean workloads too (`ipBlockMatchesWorkloads`). 0.0.0.0/0 and
::/0 are written for the world and are taken so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reconciler.compile.networks import IpAddress, IpNetwork
from reconciler.compile.shadows import Said
from reconciler.model.cluster import Node
from reconciler.model.policy import CidrPeer
from reconciler.model.snapshot import Snapshot


class _Range(NamedTuple):
    """First and last address of a CIDR that a node's workloads have their addresses from."""

    first: int
    last: int
    cidr: IpNetwork
    node: Node


def passed_over(snapshot: Snapshot) -> Iterator[Said]:
    """O(entries of rules)."""
    ranges = {version: _ranges(snapshot, version) for version in (4, 6)}
    nodes = {ip: node for node in snapshot.nodes.values() for ip in (node.address4, node.address6) if ip is not None}
    for rule in snapshot.rules:
        for item in rule.ingress + rule.egress:
            for peer in item.peers or ():
                if isinstance(peer, CidrPeer) and peer.network.prefixlen:
                    for what in _missed(peer, ranges[peer.network.version], nodes):
                        yield item.origin, f"{item.field} of {rule.reference}: {peer.network} {what}"


def _missed(peer: CidrPeer, ranges: list[_Range], nodes: Mapping[IpAddress, Node]) -> Iterator[str]:
    if not peer.matches_workloads and (one := _inside(peer, ranges)):
        whose = f"workloads of Node {one.node.name} ({one.cidr})"
        yield f"holds addresses of {whose}, which a CIDR does not match: select them by label"
    if peer.network.prefixlen == peer.network.max_prefixlen and (node := nodes.get(peer.network.network_address)):
        entity = "it is the entity host on that node and remote-node on others"
        yield f"is the address of Node {node.name}, which a CIDR does not match: {entity}"


def _ranges(snapshot: Snapshot, version: int) -> list[_Range]:
    """In order; no two overlap."""
    cidrs = ((node.cidr4 if version == 4 else node.cidr6, node) for node in snapshot.nodes.values())
    found = [_Range(*_ends(cidr), cidr, node) for cidr, node in cidrs if cidr is not None]
    return sorted(found, key=lambda one: one.first)


def _ends(network: IpNetwork) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _inside(peer: CidrPeer, ranges: list[_Range]) -> _Range | None:
    """The first range that a peer meets outside its exceptions."""
    first, last = _ends(peer.network)
    holes = [_ends(hole) for hole in peer.excepts]
    for one in ranges[bisect_left(ranges, first, key=lambda one: one.last) :]:
        if one.first > last:
            return None
        low, high = max(one.first, first), min(one.last, last)
        if not any(start <= low and high <= end for start, end in holes):
            return one
    return None
