"""Addresses and ports that Services claim, where the cluster serves them: each is one service's, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from reconciler.errors import Fault
from reconciler.model.cluster import Cluster
from reconciler.model.cluster import Node as Host
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import Address, Network, Service, ServiceType
from reconciler.model.snapshot import Warning
from reconciler.source.references import Documents, Placed

_NAMES = {number: name for name, number in PROTOCOLS.items()}


class _Claim(NamedTuple):
    """`address` None: a port of every node. `port` 0: the whole address."""

    address: Address | None
    protocol: int
    port: int

    def __str__(self) -> str:
        if self.port == 0:
            return f"address {self.address}"
        port = f"{self.port}/{_NAMES.get(self.protocol, self.protocol)}"
        return f"node port {port}" if self.address is None else f"port {port} of {self.address}"


def service_faults(documents: Documents) -> Iterator[Fault]:
    cluster = _cluster(documents)
    if cluster is None or cluster.services is None:
        return
    yield from _range_faults(documents, cluster)
    owners: dict[_Claim, Placed] = {}
    networks, addresses = _of_hosts(documents)
    for placed in documents.services.values():
        service = placed.document.content
        assert isinstance(service, Service)
        for claim, field in _claims(service):
            if claim in owners:
                other = owners[claim]
                yield placed.fault(f"{claim} is already that of {other.document.identity} at {other}", field)
            owners.setdefault(claim, placed)
        yield from _misplaced(placed, service, networks, addresses)


def service_warnings(documents: Documents) -> Iterator[Warning]:
    """Where the cluster serves no Services: at the first of those that somebody would expect an answer of."""
    cluster = _cluster(documents)
    if cluster is None or cluster.services is not None:
        return
    for placed in documents.services.values():
        service = placed.document.content
        assert isinstance(service, Service)
        if not service.headless and service.type is not ServiceType.EXTERNAL_NAME:
            place = placed.document.place
            message = (
                "nothing answers at the addresses of Services: the Cluster has no spec.services; policies find them"
            )
            yield Warning(placed.path, place.line, place.column, message)
            return


def _claims(service: Service) -> Iterator[tuple[_Claim, str]]:
    """Each with the field that makes it."""
    for address in service.cluster_ips:
        yield _Claim(address, 0, 0), "clusterIP"
    outside = dict.fromkeys(service.external_ips, "externalIPs")
    if service.load_balancer_ip is not None:
        outside[service.load_balancer_ip] = "loadBalancerIP"
    for port in service.ports:
        for address, field in outside.items():
            yield _Claim(address, port.protocol, port.port), field
        if port.node_port:
            yield _Claim(None, port.protocol, port.node_port), "ports"


def _misplaced(
    placed: Placed, service: Service, networks: dict[Network, Placed], addresses: dict[Address, Placed]
) -> Iterator[Fault]:
    """Its cluster addresses are no node's and no workload's."""
    for address in service.cluster_ips:
        if address in addresses:
            host = addresses[address]
            yield placed.fault(f"{address} is an address of {host.document.identity} at {host}", "clusterIP")
        for network, host in networks.items():
            if address in network:
                message = f"{address} is inside {network}, for workloads of {host.document.identity} at {host}"
                yield placed.fault(message, "clusterIP")


def _range_faults(documents: Documents, cluster: Cluster) -> Iterator[Fault]:
    """What services' addresses come from holds nobody else's."""
    placed = documents.clusters[0]
    networks, addresses = _of_hosts(documents)
    for cidr in cluster.services.cidrs if cluster.services else ():
        for network, host in networks.items():
            if cidr.overlaps(network):
                yield placed.fault(f"services: {cidr} overlaps {network} of {host.document.identity} at {host}")
        for pool in cluster.pools:
            if cidr.overlaps(pool.cidr):
                yield placed.fault(f"services: {cidr} overlaps {pool.cidr}, a pool for nodes")
        for address, host in addresses.items():
            if address in cidr:
                yield placed.fault(f"services: {cidr} holds {address} of {host.document.identity} at {host}")


def _of_hosts(documents: Documents) -> tuple[dict[Network, Placed], dict[Address, Placed]]:
    networks: dict[Network, Placed] = {}
    addresses: dict[Address, Placed] = {}
    for placed in documents.hosts.values():
        host = placed.document.content
        assert isinstance(host, Host)
        networks |= {cidr: placed for cidr in (host.cidr4, host.cidr6) if cidr is not None}
        addresses |= {address: placed for address in (host.address4, host.address6) if address is not None}
    return networks, addresses


def _cluster(documents: Documents) -> Cluster | None:
    content = documents.clusters[0].document.content if documents.clusters else None
    return content if isinstance(content, Cluster) else None
