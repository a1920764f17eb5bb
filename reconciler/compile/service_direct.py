"""Who answers clients outside by itself: workloads of other nodes, found by selectors or listed by EndpointSlices.

Only a node of this cluster knows what to do with what it is sent for them, so nobody else's are among them: no address
outside the cluster, none of a node itself, and none of a workload of a joined cluster. And it knows only the way of the
commit that it has applied, so there are none of a node that does not say that it takes this commit's. It believes only
what comes from an address that it knows as a node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from reconciler.model.balancing import address_of
from reconciler.model.cluster import Cluster, DirectReturn
from reconciler.model.facts import NO_REMOTE, Facts, RemoteEndpoints
from reconciler.model.service import Address, EndpointSlice, SliceEndpoint
from reconciler.model.snapshot import Snapshot, Warning

_Listed = tuple[tuple[SliceEndpoint, ...], ...]
_NOBODY: frozenset[Address] = frozenset()


def wraps_over_routes(cluster: Cluster) -> bool:
    """Whether hosts wrap what they bring to other nodes, and no tunnel says where it comes from."""
    wrapped = cluster.direct_return in (DirectReturn.IPIP, DirectReturn.GENEVE)
    return wrapped and not cluster.network.is_overlay


def taking_nodes(snapshot: Snapshot, facts: Facts) -> frozenset[str]:
    """Other nodes of this cluster that take what this one brings to their workloads in the way of its commit."""
    way = snapshot.cluster.direct_return
    if way is DirectReturn.NONE:
        return frozenset()
    return frozenset(
        name for name, peer in facts.peers.items() if peer.direct_return == way.value and not peer.is_foreign
    )


def returning_versions(snapshot: Snapshot, node: str) -> frozenset[int]:
    """IP versions over which workloads of other nodes answer what this node brings them."""
    cluster = snapshot.cluster
    if cluster.direct_return is DirectReturn.NONE:
        return frozenset()
    if cluster.direct_return is DirectReturn.OPTION or cluster.network.is_overlay:
        return frozenset((4, 6))
    here = snapshot.nodes[node]
    return frozenset(one.version for one in (here.address4, here.address6) if one is not None)


def unreturned(snapshot: Snapshot, node: str) -> Iterator[Warning]:
    """A warning for each IP version over which none does though the cluster asks for it."""
    here, found = snapshot.nodes[node], returning_versions(snapshot, node)
    if snapshot.cluster.direct_return is DirectReturn.NONE:
        return
    for cidr in (here.cidr4, here.cidr6):
        if cidr is not None and cidr.version not in found:
            yield Warning(
                here.origin.path,
                here.origin.line,
                here.origin.column,
                f"clients of {node} get answers over it, not directly: it has no IPv{cidr.version} address in "
                f"spec.addresses, by which other nodes would know it",
            )


class Direct:
    """Remembers the addresses of the last facts, and what it found for each service."""

    def __init__(self) -> None:
        self._is_on = False
        self._remote: RemoteEndpoints = NO_REMOTE
        self._taking: frozenset[str] = frozenset()
        self._announced = _NOBODY
        self._told = _NOBODY
        self._before: dict[str, tuple[_Listed, frozenset[Address]]] = {}
        self._found: dict[str, tuple[_Listed, frozenset[Address]]] = {}

    def take(self, snapshot: Snapshot, facts: Facts) -> None:
        """O(workloads of other hosts) where these or what their nodes take changed, and some slice may list one."""
        self._is_on = bool(returning_versions(snapshot, facts.node)) and bool(snapshot.slices)
        taking = taking_nodes(snapshot, facts)
        told = _told(facts, taking) if self._is_on else _NOBODY
        is_known = self._remote is facts.remote and self._taking == taking
        self._before, self._found = self._found if is_known and self._told == told else {}, {}
        self._told = told
        if self._is_on and not is_known:
            self._remote, self._taking, self._announced = facts.remote, taking, _announced(facts.remote, taking)

    def of(self, service: str, slices: Iterable[EndpointSlice]) -> frozenset[Address]:
        """Those of the addresses that a service's slices list."""
        if not self._is_on:
            return _NOBODY
        listed = tuple([one.endpoints for one in slices])
        known = self._before.get(service)
        if known is None or known[0] != listed:
            known = listed, self._among(listed)
        self._found[service] = known
        return known[1]

    def _among(self, listed: _Listed) -> frozenset[Address]:
        addresses = (address for endpoints in listed for endpoint in endpoints for address in endpoint.addresses)
        return frozenset(one for one in addresses if one in self._announced or one in self._told)


def _announced(remote: RemoteEndpoints, taking: frozenset[str]) -> frozenset[Address]:
    taken = np.array([node in taking for node in remote.nodes], np.bool_)
    rows = remote.rows[taken[remote.rows["endpoint"]]] if len(remote) else remote.rows
    return frozenset(map(address_of, rows["high"].tolist(), rows["low"].tolist()))


def _told(facts: Facts, taking: frozenset[str]) -> frozenset[Address]:
    """Of nodes that announce nothing, as far as manifests tell."""
    elsewhere = (one for one in facts.endpoints.values() if one.node in taking)
    found = (address for one in elsewhere for address in (one.address4, one.address6))
    return frozenset(address for address in found if address is not None)
