"""Services as values, and their rows as people would say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from reconciler.compile.services import Balancing, ServiceMemory, services
from reconciler.model.balancing import ServiceRow, address_of
from reconciler.model.cluster import Cluster, Services, Workload
from reconciler.model.facts import Facts, ServiceFacts
from reconciler.model.service import EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort
from reconciler.model.snapshot import Snapshot

from .worlds import CLUSTER, COMMIT, NODES, TCP, facts_of, origin

SERVING = replace(CLUSTER, services=Services())
WEB = ServicePort("", TCP, 80, 8080)
Key = tuple[str, int, str]  # address, port, inside or outside


def service(name: str = "web", ports: Sequence[ServicePort] = (WEB,), **others: object) -> Service:
    known: dict[str, object] = {"cluster_ips": (IPv4Address("10.96.0.1"),), "selector": {"app": name}, **others}
    return Service("default", name, origin("Service", name), ports=tuple(ports), **known)  # type: ignore[arg-type]


def slice_of(service: str, *endpoints: SliceEndpoint | str, name: str = "a", **others: object) -> EndpointSlice:
    found = tuple(SliceEndpoint((ip_address(one),)) if isinstance(one, str) else one for one in endpoints)
    ports = others.pop("ports", (SlicePort("", TCP, 9000),))
    return EndpointSlice("default", name, origin("EndpointSlice", name), service, {}, found, ports, **others)  # type: ignore[arg-type]


def snapshot_of(
    some: Sequence[Service], workloads: Sequence[Workload] = (), slices: Sequence[EndpointSlice] = ()
) -> Snapshot:
    return Snapshot(
        COMMIT,
        SERVING,
        NODES,
        {},
        {one.reference: one for one in workloads},
        (),
        services={one.reference: one for one in some},
        slices={one.reference: one for one in slices},
    )


class World:
    """Services compiled on the node `alpha`."""

    def __init__(
        self,
        some: Sequence[Service],
        workloads: Sequence[Workload] = (),
        slices: Sequence[EndpointSlice] = (),
        said: ServiceFacts | None = None,
        facts: Facts | None = None,
        cluster: Cluster = SERVING,
    ) -> None:
        self.snapshot = replace(snapshot_of(some, workloads, slices), cluster=cluster)
        self.facts = replace(facts or facts_of(workloads), services=said or ServiceFacts())
        self.rows: Balancing = services(self.snapshot, self.facts, ServiceMemory())

    def frontends(self) -> dict[Key, int]:
        """Frontend -> id of its version."""
        found = zip(self.rows.frontends.keys, self.rows.frontends.values["service"].tolist(), strict=True)
        return {(str(_address(key)), int(key["port"]), ("inside", "outside")[key["scope"]]): id_ for key, id_ in found}

    def flags(self, *key: object) -> int:
        place = list(self.frontends()).index(key)  # type: ignore[arg-type]
        return int(self.rows.frontends.values["flags"][place])

    def row(self, address: str = "10.96.0.1", port: int = 80, scope: str = "inside") -> ServiceRow:
        found: ServiceRow = self.rows.services.rows[self.frontends()[address, port, scope]]
        return found

    def names(self) -> Mapping[int, str]:
        """Id of a backend -> `address:port`."""
        keys, values = self.rows.backends.keys["id"].tolist(), self.rows.backends.values
        return {key: f"{_address(value)}:{value['port']}" for key, value in zip(keys, values, strict=True)}

    def backends(self, address: str = "10.96.0.1", port: int = 80, scope: str = "inside") -> dict[str, int]:
        """Those that get new flows -> weight."""
        names = self.names()
        return {names[number]: weight for number, weight in self.row(address, port, scope).backends}

    def states(self) -> dict[str, int]:
        """Every backend -> its flags."""
        flags = self.rows.backends.values["flags"].tolist()
        return dict(zip(self.names().values(), flags, strict=True))


def _address(record: object) -> IPv4Address | IPv6Address:
    return address_of(int(record["high"]), int(record["low"]))  # type: ignore[index]
