"""The endpoints of services as peers: workloads by the service's selector, other addresses from its EndpointSlices.

A service's own address is no endpoint: policy is judged after the service was translated to one. A slice may list the
address of a workload, so its addresses match workloads too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from ipaddress import ip_network

from reconciler.model.labels import NAMESPACE_KEY, Label, LabelSet
from reconciler.model.policy import CidrPeer, EndpointPeer, ServicePeer
from reconciler.model.selector import Selector, label_is
from reconciler.model.service import EndpointSlice, Service

Resolved = tuple[EndpointPeer | CidrPeer, ...]
_SOURCE = "k8s"  # of the labels of services, and of those that they select by


class Backends:
    """Services and their slices of one commit, both by `namespace/name`; remembers what it has been asked."""

    def __init__(self, services: Mapping[str, Service], slices: Mapping[str, EndpointSlice]) -> None:
        self._services = services
        self._slices: defaultdict[str, list[EndpointSlice]] = defaultdict(list)
        for one in slices.values():
            self._slices[f"{one.namespace}/{one.service}"].append(one)
        self._peers: dict[ServicePeer, Resolved] = {}

    def peers(self, peer: ServicePeer) -> Resolved:
        """Nobody where no service is meant. O(services), once for each peer."""
        if peer not in self._peers:
            found = (each for service in self.services(peer) for each in self._endpoints(service))
            self._peers[peer] = tuple(dict.fromkeys(found))
        return self._peers[peer]

    def services(self, peer: ServicePeer) -> list[Service]:
        """The services that a peer means."""
        if peer.selector is None and peer.namespace:
            one = self._services.get(f"{peer.namespace}/{peer.name}")
            return [one] if one else []
        return [service for service in self._services.values() if _means(peer, service)]

    def _endpoints(self, service: Service) -> list[EndpointPeer | CidrPeer]:
        found: list[EndpointPeer | CidrPeer] = [EndpointPeer(selected(service))] if service.selector else []
        for one in self._slices.get(service.reference, ()):
            addresses = (address for endpoint in one.endpoints for address in endpoint.addresses)
            found += [CidrPeer(ip_network(address), matches_workloads=True) for address in addresses]
        return found


NO_BACKENDS = Backends({}, {})


def selected(service: Service) -> Selector:
    """The workloads that a service with a selector selects."""
    wanted = tuple(label_is(_SOURCE, key, value) for key, value in service.selector.items())
    return Selector((*wanted, label_is(_SOURCE, NAMESPACE_KEY, service.namespace)))


def _means(peer: ServicePeer, service: Service) -> bool:
    if peer.namespace not in ("", service.namespace):
        return False
    return service.name == peer.name if peer.selector is None else peer.selector.matches(_labels(service))


def _labels(service: Service) -> LabelSet:
    return frozenset(Label(_SOURCE, key, value) for key, value in service.labels.items())
