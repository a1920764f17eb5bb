"""Which addresses that EndpointSlices list answer clients outside by themselves: those of workloads of other nodes.

Only a node of this cluster knows what to do with what it is sent for them, so nobody else's are among them: no address
outside the cluster, none of a node itself, and none of a workload of a joined cluster.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from reconciler.model.balancing import address_of
from reconciler.model.cluster import Cluster, DirectReturn
from reconciler.model.facts import NO_REMOTE, Facts, RemoteEndpoints, is_foreign
from reconciler.model.service import Address, EndpointSlice, SliceEndpoint
from reconciler.model.snapshot import Snapshot

_Listed = tuple[tuple[SliceEndpoint, ...], ...]
_NOBODY: frozenset[Address] = frozenset()


def returns_directly(cluster: Cluster) -> bool:
    return cluster.services is not None and cluster.services.direct_return is not DirectReturn.NONE


class Direct:
    """Remembers the addresses of the last facts, and what it found for each service."""

    def __init__(self) -> None:
        self._is_on = False
        self._remote: RemoteEndpoints = NO_REMOTE
        self._announced = _NOBODY
        self._told = _NOBODY
        self._before: dict[str, tuple[_Listed, frozenset[Address]]] = {}
        self._found: dict[str, tuple[_Listed, frozenset[Address]]] = {}

    def take(self, snapshot: Snapshot, facts: Facts) -> None:
        """O(workloads of other hosts) where these changed, and some slice may list one."""
        self._is_on = returns_directly(snapshot.cluster) and bool(snapshot.slices)
        told = _told(facts) if self._is_on else _NOBODY
        is_same = self._remote is facts.remote and self._told == told
        self._before, self._found = self._found if is_same else {}, {}
        self._told = told
        if self._is_on and self._remote is not facts.remote:
            self._remote, self._announced = facts.remote, _announced(facts.remote)

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


def _announced(remote: RemoteEndpoints) -> frozenset[Address]:
    foreign = np.array([is_foreign(node) for node in remote.nodes], np.bool_)
    rows = remote.rows[~foreign[remote.rows["endpoint"]]] if len(remote) else remote.rows
    return frozenset(map(address_of, rows["high"].tolist(), rows["low"].tolist()))


def _told(facts: Facts) -> frozenset[Address]:
    """Of nodes that announce nothing, as far as manifests tell."""
    elsewhere = (one for one in facts.endpoints.values() if one.node != facts.node)
    found = (address for one in elsewhere for address in (one.address4, one.address6))
    return frozenset(address for address in found if address is not None)
