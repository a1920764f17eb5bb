"""One service as rows: its frontends, what stands behind each of them, and its backends.

What a frontend stands for depends on where its clients are: there is a version for clients inside and one for those
outside, for each family, and where they say the same they are one, as an id is drawn from what a version says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.compile.numbering import hashed
from reconciler.compile.service_backends import Backend, backends, chosen
from reconciler.compile.service_members import Member
from reconciler.errors import CompileError
from reconciler.model.balancing import Algorithm, FrontendFlag, Scope, ServiceRow, WhenNone, words_of
from reconciler.model.facts import BackendKey, port_name
from reconciler.model.maglev import MOST_BACKENDS
from reconciler.model.service import Address, EndpointSlice, Network, Service, ServicePort, TrafficPolicy

IDS = (1 << 32) - 1  # 0 means none
_FRONTEND = struct.Struct("<QQHBBI")  # FRONTEND_KEY
_BACKEND = struct.Struct("<IQQHBBI")  # BACKEND_KEY and BACKEND_VALUE


class Given(NamedTuple):
    """What one service is made from. Two that are equal are served alike.

    addresses       inside the cluster
    node_addresses  of this host, where node ports are
    node_ports      of each port of the service, 0: none
    names           number of each port of the service
    direct          those addresses of its slices that workloads have whose nodes take what is brought to them
    returning       IP versions over which these, and members that are `direct`, answer clients outside by themselves
    redrawn         backend -> id, of those whose first draw another one had too
    """

    service: Service
    slices: tuple[EndpointSlice, ...]
    members: tuple[tuple[Member, ...], ...]
    node: str
    addresses: tuple[Address, ...]
    node_addresses: tuple[Address, ...]
    node_ports: tuple[int, ...]
    names: tuple[int, ...]
    algorithm: Algorithm
    unhealthy: frozenset[BackendKey] = frozenset()
    direct: frozenset[Address] = frozenset()
    returning: frozenset[int] = frozenset()
    redrawn: tuple[tuple[BackendKey, int], ...] = ()

    def backends(self, port: ServicePort) -> list[Backend]:
        members = (member for same in self.members for member in same)
        return backends(
            self.service, port, members, self.slices, self.node, self.unhealthy, self.direct, self.returning
        )


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """`frontends`: keys, each with flags and the place of its version in `versions`, in the layout of model/balancing.
    `backends`: ids and rows, in that layout, one behind the other.
    """

    frontends: tuple[tuple[bytes, int, int], ...]
    versions: tuple[tuple[int, ServiceRow], ...]
    backends: bytes


def served(given: Given) -> Served:
    """Raises CompileError for more backends than a table can have."""
    rows: dict[ServiceRow, int] = {}
    frontends: list[tuple[bytes, int, int]] = []
    used: dict[BackendKey, Backend] = {}
    redrawn = dict(given.redrawn)
    for port, number, node_port in zip(given.service.ports, given.names, given.node_ports, strict=True):
        found = reachable(given, port, node_port)
        used |= {one.key: one for one in found}
        for address, service_port, front in fronts(given, port, node_port):
            row = _row(given, found, address.version, number, front, redrawn)
            flags = (FrontendFlag.LOCAL if front.local else 0) | (FrontendFlag.SOURCES if front.sources else 0)
            key = frontend_key(address, service_port, port.protocol, front.scope)
            frontends.append((key, int(flags), rows.setdefault(row, len(rows))))
    versions = tuple((version_id(row), row) for row in rows)
    return Served(tuple(frontends), versions, b"".join(_record(one, redrawn) for one in used.values()))


def reachable(given: Given, port: ServicePort, node_port: int) -> list[Backend]:
    """Backends of the families that the port has frontends of."""
    families = {address.version for address, _, _ in fronts(given, port, node_port)}
    return [one for one in given.backends(port) if one.address.version in families]


class Front(NamedTuple):
    """Where a frontend is used, and which backends it may reach. `kind` is for people."""

    kind: str
    scope: Scope
    local: bool = False
    sources: tuple[Network, ...] = ()


def fronts(given: Given, port: ServicePort, node_port: int) -> Iterator[tuple[Address, int, Front]]:
    """Address and port of each frontend of one port. From inside, addresses for the outside reach any backend.

    Node ports are at addresses of the families that the service has addresses of, as in Kubernetes.
    """
    service = given.service
    local_inside = service.internal_traffic is TrafficPolicy.LOCAL
    local_outside = service.external_traffic is TrafficPolicy.LOCAL
    for address in given.addresses:
        yield address, port.port, Front("cluster", Scope.INSIDE, local_inside)
    outside: list[tuple[Address, int, str]] = [(one, port.port, "external") for one in service.external_ips]
    if service.load_balancer_ip is not None and service.load_balancer_ip not in service.external_ips:
        outside.append((service.load_balancer_ip, port.port, "load balancer"))
    if node_port:
        families = {one.version for one in given.addresses}
        outside += [(one, node_port, "node port") for one in given.node_addresses if one.version in families]
    for address, number, kind in outside:
        sources = service.source_ranges if kind != "node port" else ()
        yield address, number, Front(kind, Scope.INSIDE)
        yield address, number, Front(kind, Scope.OUTSIDE, local_outside, sources)


def _row(
    given: Given, found: Sequence[Backend], version: int, number: int, front: Front, redrawn: Mapping[BackendKey, int]
) -> ServiceRow:
    service = given.service
    reachable = [one for one in found if one.address.version == version and (one.local or not front.local)]
    picked = chosen(reachable, service.all_unhealthy)
    if len(picked) > MOST_BACKENDS:
        raise CompileError(
            f"{service.origin}: {len(picked)} backends are more than a table can have, {MOST_BACKENDS}",
            remedy="split the service",
        )
    return ServiceRow(
        number,
        tuple(sorted((backend_id(one.key, redrawn), one.weight) for one in picked)),
        service.algorithm or given.algorithm,
        service.affinity_s,
        WhenNone.DROP if front.local and not reachable else WhenNone.REFUSE,
        tuple(sorted((one for one in front.sources if one.version == version), key=str)),
    )


def backend_name(key: BackendKey) -> str:
    address, port, protocol = key
    return f"{address} {port}/{protocol}"


def backend_id(key: BackendKey, redrawn: Mapping[BackendKey, int]) -> int:
    return redrawn.get(key) or hashed(backend_name(key), 0) % IDS + 1


def version_text(row: ServiceRow) -> str:
    """All that a version says; what its id is drawn from."""
    backends = ",".join(f"{number}*{weight}" for number, weight in row.backends)
    sources = ",".join(map(str, row.sources))
    return f"{row.name} {row.algorithm.value} {row.affinity_s} {row.when_none.value} [{sources}] {backends}"


def version_id(row: ServiceRow) -> int:
    return hashed(version_text(row), 0) % IDS + 1


def service_name(service: str, port: ServicePort) -> str:
    return port_name(service, port.port, port.protocol)


def frontend_key(address: Address, port: int, protocol: int, scope: Scope) -> bytes:
    return _FRONTEND.pack(*words_of(address), port, protocol, scope, 0)


def _record(backend: Backend, redrawn: Mapping[BackendKey, int]) -> bytes:
    number = backend_id(backend.key, redrawn)
    return _BACKEND.pack(number, *words_of(backend.address), backend.port, backend.protocol, backend.flags, 0)
