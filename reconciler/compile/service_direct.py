"""Who answers clients outside by itself: workloads of other nodes, found by selectors or listed by EndpointSlices.

Only a node of this cluster knows what to do with what it is sent for them, so nobody else's are among them: no address
outside the cluster, none of a node itself, and none of a workload of a joined cluster. And it knows only the way of the
commit that it has applied, so there are none of a node that does not say that it takes this commit's, and of one that
takes a part of it only those of the IP version that this is about. It believes only what comes from an address that it
knows as a node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from reconciler.compile.underlay import outer_version
from reconciler.model.balancing import address_of
from reconciler.model.cluster import GENEVE_OF_ONE_VERSION, Cluster, DirectReturn, Node
from reconciler.model.facts import NO_REMOTE, Facts, Peer, RemoteEndpoints
from reconciler.model.service import Address, EndpointSlice, SliceEndpoint
from reconciler.model.snapshot import Snapshot, Warning

_Listed = tuple[tuple[SliceEndpoint, ...], ...]
_NOBODY: frozenset[Address] = frozenset()
_BOTH = frozenset((4, 6))
Taking = Mapping[str, frozenset[int]]


def wraps_over_routes(cluster: Cluster) -> bool:
    """Whether hosts wrap what they bring to other nodes, and no tunnel says where it comes from."""
    wrapped = cluster.direct_return in (DirectReturn.IPIP, DirectReturn.GENEVE)
    return wrapped and not cluster.network.is_overlay


def taking_nodes(snapshot: Snapshot, facts: Facts) -> Taking:
    """Node -> IP versions of what it takes: other nodes of this cluster that take what this one brings to their
    workloads in the way of its commit.
    """
    if snapshot.cluster.direct_return is DirectReturn.NONE:
        return {}
    here = snapshot.nodes[facts.node]
    found = {name: _taken(snapshot.cluster, here, peer) for name, peer in facts.peers.items() if not peer.is_foreign}
    return {name: versions for name, versions in found.items() if versions}


def _taken(cluster: Cluster, here: Node, peer: Peer) -> frozenset[int]:
    if peer.direct_return == cluster.direct_return.value:
        return _BOTH
    if cluster.direct_return is not DirectReturn.GENEVE or peer.direct_return != GENEVE_OF_ONE_VERSION:
        return frozenset()
    return frozenset((outer_version(cluster, here, peer),)) if cluster.network.is_overlay else _BOTH


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
        self._taking: Taking = {}
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


def _announced(remote: RemoteEndpoints, taking: Taking) -> frozenset[Address]:
    taken = np.array([node in taking for node in remote.nodes], np.bool_)
    rows = remote.rows[taken[remote.rows["endpoint"]]] if len(remote) else remote.rows
    found = map(address_of, rows["high"].tolist(), rows["low"].tolist())
    versions = [taking[remote.nodes[endpoint]] for endpoint in rows["endpoint"].tolist()]
    return frozenset(address for address, some in zip(found, versions, strict=True) if address.version in some)


def _told(facts: Facts, taking: Taking) -> frozenset[Address]:
    """Of nodes that announce nothing, as far as manifests tell."""
    elsewhere = [(one, taking[one.node]) for one in facts.endpoints.values() if one.node in taking]
    found = ((address, some) for one, some in elsewhere for address in (one.address4, one.address6))
    return frozenset(address for address, some in found if address is not None and address.version in some)
