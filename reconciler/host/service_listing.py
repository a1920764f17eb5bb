"""Services as people ask for them: frontends, backends with their states, and where each comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconciler.compile.service_backends import Backend, State, chosen
from reconciler.compile.service_members import ServiceMembers
from reconciler.compile.service_versions import Front, Given, fronts, reachable
from reconciler.engine.values import to_plain
from reconciler.host.target import Target
from reconciler.model.origin import Origin
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import Address, Service, ServicePort

_ANY = ServicePort("", PROTOCOLS["TCP"], 0, 1)  # of a headless service without ports: its backends are addresses alone
_PROTOCOLS = {number: name.lower() for name, number in PROTOCOLS.items()}


def services(target: Target) -> list[dict[str, Any]]:
    """Those that are served and those that are headless, by reference; what each port's backends are on this host."""
    origins = _Origins(target)
    found = {**target.desired.services, **_headless(target)}
    return [_service(name, given, origins) for name, given in sorted(found.items())]


def _headless(target: Target) -> dict[str, Given]:
    """Headless services have no rows: what they stand for is worked out for who asks."""
    snapshot, facts = target.snapshot, target.facts
    settings = snapshot.cluster.services
    wanted = {name: one for name, one in snapshot.services.items() if one.headless}
    if settings is None or not wanted:
        return {}
    members = ServiceMembers()
    members.take(snapshot, facts)
    found: dict[str, Given] = {}
    for name, service in wanted.items():
        slices = [one for one in snapshot.slices.values() if f"{one.namespace}/{one.service}" == name]
        if not service.ports:
            service, slices = replace(service, ports=(_ANY,)), [replace(one, ports=()) for one in slices]
        none = (0,) * len(service.ports)
        found[name] = Given(
            service, tuple(slices), members.of(service), facts.node, (), (), none, none, settings.algorithm
        )
    return found


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
        "headless": service.headless,
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
    headless = given.service.headless
    found = given.backends(port) if headless else reachable(given, port, node_port)
    protocol = _PROTOCOLS.get(port.protocol, str(port.protocol))
    frontends = [
        _frontend(f"{_host(str(address))}:{number}/{protocol}", front)
        for address, number, front in (() if headless else fronts(given, port, node_port))
    ]
    active = {one.key for version in (4, 6) for one in chosen(_of(found, version), given.service.all_unhealthy)}
    return {
        "port": f"{port.port}/{protocol}" if port is not _ANY else "any",
        "name": port.name,
        "node_port": node_port or None,
        "frontends": frontends,
        "backends": [_backend(one, origins, one.key in active, port is not _ANY) for one in found],
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


def _backend(one: Backend, origins: _Origins, active: bool, has_port: bool) -> dict[str, Any]:
    origin = origins.of(one.source)
    return {
        "backend": f"{_host(str(one.address))}:{one.port}" if has_port else str(one.address),
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
