"""What the cluster's services were given: addresses inside the cluster, and ports on every node.

All hosts agree on it by the store. An address of a family that the cluster has no CIDR of is taken as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

from reconciler.engine.remembered import Remembered
from reconciler.errors import CompileError
from reconciler.model.cluster import Services
from reconciler.model.facts import NO_SERVICES, ServiceFacts, port_name
from reconciler.model.service import Address, FamilyPolicy, Network, Service, ServiceType
from reconciler.model.snapshot import Snapshot
from reconciler.store.addresses import Allocation
from reconciler.store.protocol import Store
from reconciler.store.service_addresses import NodePorts, ServiceAddresses

_ON_NODES = (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)
_SAYS = attrgetter("cluster_ips", "families", "family_policy")

Asked = Sequence[tuple[Network, Mapping[str, Address | None]]]  # CIDR -> service -> the address that it asks for


@dataclass(slots=True)
class ServiceFactsMemory:
    """What one pass leaves to the next, only to be faster: `allocations` by version of IP."""

    asked: Remembered[Asked] = field(default_factory=Remembered)
    allocations: defaultdict[int, Remembered[Allocation]] = field(default_factory=lambda: defaultdict(Remembered))
    given: Remembered[Mapping[str, tuple[Address, ...]]] = field(default_factory=Remembered)


def service_facts(snapshot: Snapshot, store: Store, memory: ServiceFactsMemory | None = None) -> ServiceFacts:
    """Raises CompileError if a range is used up, or a Service needs a family that the cluster has no CIDR of."""
    settings = snapshot.cluster.services
    if settings is None:
        return NO_SERVICES
    memory = memory or ServiceFactsMemory()
    served = _served(snapshot)
    says = (list(served), [*map(_SAYS, served.values())], settings)
    asked = memory.asked.get(says, partial(_asked_of, served, settings))
    outside = _outside(served.values())
    found = [
        ServiceAddresses(store, cidr, snapshot.cluster.name, outside, memory.allocations[cidr.version]).allocate(wanted)
        for cidr, wanted in asked
    ]
    given = memory.given.get((*says, found), partial(_given, served, found, settings))
    return ServiceFacts(given, _node_ports(snapshot, served, settings, store))


def _asked_of(served: Mapping[str, Service], settings: Services) -> Asked:
    every = [
        (cidr, {name: _asked(one, cidr) for name, one in served.items() if cidr.version in _families(one, settings)})
        for cidr in settings.cidrs
    ]
    return [(cidr, wanted) for cidr, wanted in every if wanted]


def _given(
    served: Mapping[str, Service], found: Iterable[Mapping[str, Address]], settings: Services
) -> Mapping[str, tuple[Address, ...]]:
    given = {name: list(service.cluster_ips) for name, service in served.items()}
    for addresses in found:
        for name, address in addresses.items():
            if address not in given[name]:
                given[name].append(address)
    for name, service in served.items():
        _require(service, given[name], settings)
    return {name: tuple(_in_order(served[name], addresses)) for name, addresses in given.items()}


def _served(snapshot: Snapshot) -> dict[str, Service]:
    return {
        name: one
        for name, one in snapshot.services.items()
        if not one.headless and one.type is not ServiceType.EXTERNAL_NAME
    }


def _outside(services: Iterable[Service]) -> frozenset[Address]:
    """Addresses that services have for the outside: in a CIDR of the cluster's they could be chosen for another one."""
    found = (address for one in services for address in (*one.external_ips, one.load_balancer_ip))
    return frozenset(address for address in found if address is not None)


def _families(service: Service, settings: Services) -> tuple[int, ...]:
    """Of its addresses, the preferred one first (Kubernetes pkg/registry/core/service/storage/alloc.go)."""
    of_cluster = [cidr.version for cidr in settings.cidrs]
    asked = [address.version for address in service.cluster_ips]
    preferred = list(dict.fromkeys([*asked, *service.families, *of_cluster]))
    if service.family_policy is FamilyPolicy.SINGLE:
        return tuple(preferred[: max(1, len(asked), len(service.families))])
    return tuple(preferred)


def _asked(service: Service, cidr: Network) -> Address | None:
    return next((address for address in service.cluster_ips if address.version == cidr.version), None)


def _require(service: Service, given: list[Address], settings: Services) -> None:
    wanted = 2 if service.family_policy is FamilyPolicy.REQUIRE_DUAL else 1
    missing = set(_families(service, settings)) - {address.version for address in given}
    if len(given) < wanted or (missing and service.families):
        there = ", ".join(map(str, settings.cidrs)) or "none"
        raise CompileError(
            f"{service.origin}: {service.reference} needs an address that services.cidrs of the Cluster cannot give: "
            f"there are {there}",
            remedy="add a CIDR of the missing family to services.cidrs, or ask for clusterIPs",
        )


def _in_order(service: Service, addresses: list[Address]) -> list[Address]:
    preferred: list[int] = [address.version for address in service.cluster_ips] or [*service.families]
    return sorted(addresses, key=lambda one: [*preferred, one.version].index(one.version))


def _node_ports(
    snapshot: Snapshot, served: Mapping[str, Service], settings: Services, store: Store
) -> Mapping[str, int]:
    wanted = {
        port_name(name, port.port, port.protocol): port.node_port
        for name, service in served.items()
        for port in service.ports
        if service.type in _ON_NODES and (port.node_port or service.allocates_node_ports)
    }
    if not wanted:
        return {}
    own = _own(snapshot)
    at_nodes = (one for one in served.values() if not own.isdisjoint(_outside((one,))))
    avoided = {(port.protocol, port.port) for one in at_nodes for port in one.ports}
    first, last = settings.first_node_port, settings.last_node_port
    return NodePorts(store, first, last, snapshot.cluster.name, avoided=avoided).allocate(wanted)


def _own(snapshot: Snapshot) -> frozenset[Address]:
    """Addresses of nodes."""
    found = (address for node in snapshot.nodes.values() for address in (node.address4, node.address6))
    return frozenset(address for address in found if address is not None)
