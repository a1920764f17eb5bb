"""Services as people ask for them: frontends, backends with their states, and where each comes from."""

from __future__ import annotations

from typing import Any

from reconciler.compile.service_backends import Backend, State, chosen
from reconciler.compile.service_versions import Front, Given, fronts, reachable
from reconciler.engine.values import to_plain
from reconciler.host.target import Target
from reconciler.model.origin import Origin
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import Address, Service, ServicePort

_PROTOCOLS = {number: name.lower() for name, number in PROTOCOLS.items()}


def services(target: Target) -> list[dict[str, Any]]:
    """Those that are served, by reference; what each port's backends are on this host."""
    origins = _Origins(target)
    return [_service(name, given, origins) for name, given in sorted(target.desired.services.items())]


class _Origins:
    def __init__(self, target: Target) -> None:
        self._snapshot = target.snapshot
        self._remote = dict(zip(target.facts.remote.names, target.facts.remote.origins, strict=True))

    def of(self, source: str) -> Origin | None:
        """Of a document, by `Kind namespace/name`."""
        kind, _, name = source.partition(" ")
        if kind == "EndpointSlice":
            return self._snapshot.slices[name].origin
        workload = self._snapshot.workloads.get(name)
        return workload.origin if workload else self._remote.get(name)


def _service(name: str, given: Given, origins: _Origins) -> dict[str, Any]:
    service = given.service
    ports = [
        _port(given, port, node_port, origins) for port, node_port in zip(service.ports, given.node_ports, strict=True)
    ]
    return {
        "service": name,
        "type": service.type.value,
        "addresses": [str(one) for one in given.addresses],
        "external": [str(one) for one in _external(service)],
        "algorithm": (service.algorithm or given.algorithm).value,
        "affinity_s": service.affinity_s,
        "health": to_plain(service.health) if service.health else None,
        "all_unhealthy": service.all_unhealthy.value,
        "ports": ports,
        "origin": to_plain(service.origin),
    }


def _external(service: Service) -> dict[Address, None]:
    """Each address for the outside once."""
    asked = (*service.external_ips, service.load_balancer_ip)
    return dict.fromkeys(one for one in asked if one is not None)


def _port(given: Given, port: ServicePort, node_port: int, origins: _Origins) -> dict[str, Any]:
    found = reachable(given, port, node_port)
    protocol = _PROTOCOLS.get(port.protocol, str(port.protocol))
    frontends = [
        _frontend(f"{_host(str(address))}:{number}/{protocol}", front)
        for address, number, front in fronts(given, port, node_port)
    ]
    active = {one.key for version in (4, 6) for one in chosen(_of(found, version), given.service.all_unhealthy)}
    return {
        "port": f"{port.port}/{protocol}",
        "name": port.name,
        "node_port": node_port or None,
        "frontends": frontends,
        "backends": [_backend(one, origins, one.key in active) for one in found],
    }


def _of(found: list[Backend], version: int) -> list[Backend]:
    return [one for one in found if one.address.version == version]


def _frontend(shown: str, front: Front) -> dict[str, Any]:
    return {
        "frontend": shown,
        "kind": front.kind,
        "from": front.scope.name.lower(),
        "backends": "of this host" if front.local else "all",
        "sources": [str(one) for one in front.sources],
    }


def _backend(one: Backend, origins: _Origins, active: bool) -> dict[str, Any]:
    origin = origins.of(one.source)
    return {
        "backend": f"{_host(str(one.address))}:{one.port}",
        "state": (one.state if one.weight else State.DRAINING).value,
        "new_flows": active,
        "weight": one.weight,
        "local": one.local,
        "direct": one.direct and not one.local,
        "source": one.source,
        "origin": to_plain(origin) if origin else None,
    }


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
