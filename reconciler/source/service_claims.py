"""Addresses and ports that Services claim, where the cluster serves them: each is one service's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reconciler.errors import Fault
from reconciler.model.cluster import Node as Host
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import Address, Service, ServiceType
from reconciler.model.snapshot import Warning
from reconciler.source.references import Documents, Placed, cluster_of, services_of

_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Claim(NamedTuple):
    """`address` None: a port of every node. `port` 0: the whole address."""

    address: Address | None
    protocol: int
    port: int

    def __str__(self) -> str:
        if self.port == 0:
            return f"address {self.address}"
        port = f"{self.port}/{_NAMES.get(self.protocol, self.protocol)}"
        return f"node port {port}" if self.address is None else f"port {port} of {self.address}"


_Owners = Mapping[Claim, Placed]


def service_faults(documents: Documents) -> Iterator[Fault]:
    cluster = cluster_of(documents)
    if cluster is None or cluster.services is None:
        return
    owners: dict[Claim, Placed] = {}
    for placed, service in services_of(documents):
        for claim, field in (*_claims(service), *outside_claims(service)):
            if claim in owners:
                yield placed.fault(f"{claim} is already that of {_named(owners[claim])}", field)
            owners.setdefault(claim, placed)
    of_nodes = _node_addresses(documents)
    for placed, service in services_of(documents):
        for claim, field in outside_claims(service):
            if (why := _taken_otherwise(claim, owners, of_nodes)) is not None:
                yield placed.fault(f"{claim} is already that of {why}", field)


def service_warnings(documents: Documents) -> Iterator[Warning]:
    """Where the cluster serves no Services: at the first of those that somebody would expect an answer of."""
    cluster = cluster_of(documents)
    if cluster is None or cluster.services is not None:
        return
    for placed, service in services_of(documents):
        if not service.headless and service.type is not ServiceType.EXTERNAL_NAME:
            place = placed.document.place
            message = (
                "nothing answers at the addresses of Services: the Cluster has no spec.services; policies find them"
            )
            yield Warning(placed.path, place.line, place.column, message)
            return


def outside_claims(service: Service) -> Iterator[tuple[Claim, str]]:
    """Ports of addresses outside the cluster, each with the field that makes the claim."""
    fields = {address: f"externalIPs[{at}]" for at, address in enumerate(service.external_ips)}
    if service.load_balancer_ip is not None:
        fields.setdefault(service.load_balancer_ip, "loadBalancerIP")
    for port in service.ports:
        for address, field in fields.items():
            yield Claim(address, port.protocol, port.port), field


def _claims(service: Service) -> Iterator[tuple[Claim, str]]:
    """Cluster addresses and node ports, each with the field that makes the claim."""
    for at, address in enumerate(service.cluster_ips):
        yield Claim(address, 0, 0), f"clusterIPs[{at}]"
    for at, port in enumerate(service.ports):
        if port.node_port:
            yield Claim(None, port.protocol, port.node_port), f"ports[{at}].nodePort"


def _taken_otherwise(claim: Claim, owners: _Owners, of_nodes: Mapping[Address, Placed]) -> str | None:
    """Who has it as a port of a cluster address, or as a node port at a node's address."""
    inside = owners.get(Claim(claim.address, 0, 0))
    if inside is not None and (claim.protocol, claim.port) in _ports(inside):
        return f"{_named(inside)}, which has the address inside the cluster (clusterIP)"
    everywhere = owners.get(Claim(None, claim.protocol, claim.port))
    host = of_nodes.get(claim.address) if claim.address is not None else None
    if everywhere is not None and host is not None:
        return f"{_named(everywhere)}, as its nodePort at {host.document.identity}"
    return None


def _ports(placed: Placed) -> set[tuple[int, int]]:
    service = placed.document.content
    assert isinstance(service, Service)
    return {(port.protocol, port.port) for port in service.ports}


def _node_addresses(documents: Documents) -> dict[Address, Placed]:
    found: dict[Address, Placed] = {}
    for placed in documents.hosts.values():
        host = placed.document.content
        assert isinstance(host, Host)
        found |= {address: placed for address in (host.address4, host.address6) if address is not None}
    return found


def _named(placed: Placed) -> str:
    return f"{placed.document.identity} at {placed}"
