"""Where addresses and node ports of Services lie: in their own ranges, and in nobody else's.

That is asked where the cluster serves Services. A node's own address may be an external one of a Service, as in
Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from reconciler.errors import Fault
from reconciler.model.cluster import Cluster, Services
from reconciler.model.cluster import Node as Host
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import Address, Network, Service
from reconciler.source.addresses import address_like
from reconciler.source.references import Documents, cluster_of, services_of
from reconciler.source.service_claims import outside_claims

_TCP = PROTOCOLS["TCP"]


@dataclass(frozen=True, slots=True)
class _Others:
    """What is not the services': each with who has it. `servers`: of the stores, as far as given by address."""

    networks: Mapping[Network, str]
    lengths: Mapping[int, tuple[int, ...]]  # of these, by family
    addresses: Mapping[Address, str]
    servers: Mapping[tuple[Address, int], str]


def place_faults(documents: Documents) -> Iterator[Fault]:
    cluster = cluster_of(documents)
    if cluster is None or cluster.services is None:
        return
    others = _others(documents, cluster)
    for message in _range_faults(cluster.services, others):
        yield documents.clusters[0].fault(f"services: {message}")
    for placed, service in services_of(documents):
        for message, field in _service_faults(service, cluster.services, others):
            yield placed.fault(message, field)


def _others(documents: Documents, cluster: Cluster) -> _Others:
    networks: dict[Network, str] = {pool.cidr: "the pools of the Cluster" for pool in cluster.pools}
    addresses: dict[Address, str] = {}
    for placed in documents.hosts.values():
        host = placed.document.content
        assert isinstance(host, Host)
        whose = f"{placed.document.identity} at {placed}"
        networks |= {cidr: whose for cidr in (host.cidr4, host.cidr6) if cidr is not None}
        addresses |= {address: whose for address in (host.address4, host.address6) if address is not None}
    lengths = {family: sorted({one.prefixlen for one in networks if one.version == family}) for family in (4, 6)}
    return _Others(networks, {family: tuple(found) for family, found in lengths.items()}, addresses, _servers(cluster))


def _servers(cluster: Cluster) -> dict[tuple[Address, int], str]:
    found: dict[tuple[Address, int], str] = {}
    for store in (cluster.store, *(joined.store for joined in cluster.clusters)):
        for text in store.endpoints:
            host, _, port = text.rpartition(":")
            if address_like(host.strip("[]")):
                found[ip_address(host.strip("[]")), int(port)] = text
    return found


def _range_faults(services: Services, others: _Others) -> Iterator[str]:
    for cidr in services.cidrs:
        for network, whose in others.networks.items():
            if cidr.overlaps(network):
                yield f"{cidr} overlaps {network} of {whose}"
        for address, whose in others.addresses.items():
            if address in cidr:
                yield f"{cidr} holds {address} of {whose}"
    first, last = services.first_node_port, services.last_node_port
    for (address, port), server in others.servers.items():
        if address in others.addresses and first <= port <= last:
            yield f"nodePorts {first}-{last} hold the port of {server}, a server of the store at a node's address"


def _service_faults(service: Service, services: Services, others: _Others) -> Iterator[tuple[str, str]]:
    """Each with its field."""
    for at, address in enumerate(service.cluster_ips):
        for message in _cluster_address_faults(address, services, others):
            yield message, f"clusterIPs[{at}]"
        for port in service.ports:
            if port.protocol == _TCP and (address, port.port) in others.servers:
                yield _server_fault(address, port.port), f"clusterIPs[{at}]"
    for message, field in dict(_outside_faults(service, others)).items():
        yield message, field
    first, last = services.first_node_port, services.last_node_port
    for at, port in enumerate(service.ports):
        if port.node_port and not first <= port.node_port <= last:
            message = f"nodePort {port.node_port} is not among services.nodePorts of the Cluster: {first} to {last}"
            yield message, f"ports[{at}].nodePort"


def _cluster_address_faults(address: Address, services: Services, others: _Others) -> Iterator[str]:
    if address in others.addresses:
        yield f"{address} is an address of {others.addresses[address]}"
    yield from _among_workloads(address, others)
    for cidr in services.cidrs:
        if cidr.version != address.version:
            continue
        if address not in cidr:
            yield f"clusterIP {address} is not inside {cidr}, of services.cidrs of the Cluster"
        elif cidr.num_addresses > 2 and address in _ends(cidr):
            yield f"clusterIP {address} is the first or last of {cidr}, which no service can have"


def _outside_faults(service: Service, others: _Others) -> Iterator[tuple[str, str]]:
    for claim, field in outside_claims(service):
        assert claim.address is not None
        for message in _among_workloads(claim.address, others):
            yield message, field
        if claim.protocol == _TCP and (claim.address, claim.port) in others.servers:
            yield _server_fault(claim.address, claim.port), field


def _ends(cidr: Network) -> tuple[Address, ...]:
    """What is no service's, as in store/addresses.py; networks of two addresses have no ends."""
    return (cidr.network_address, cidr.broadcast_address) if cidr.version == 4 else (cidr.network_address,)


def _among_workloads(address: Address, others: _Others) -> Iterator[str]:
    """By length of prefix: there may be thousands of networks, but their lengths are few."""
    for length in others.lengths[address.version]:
        network = ip_network((address, length), strict=False)
        if network in others.networks:
            yield f"{address} is inside {network}, for workloads of {others.networks[network]}"


def _server_fault(address: Address, port: int) -> str:
    return (
        f"port {port}/TCP of {address} is a server of the store, which hosts must reach: choose another address or port"
    )
