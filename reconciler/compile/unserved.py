"""Services that look right and answer nobody: without backends, or with ports that no backend has.

Where the cluster serves none, nobody expects an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from reconciler.compile import wording
from reconciler.compile.backends import selected
from reconciler.compile.population import Population
from reconciler.compile.shadows import Said
from reconciler.model.service import EndpointSlice, Service, ServicePort, ServiceType
from reconciler.model.snapshot import Snapshot


def unserved(snapshot: Snapshot, population: Population) -> Iterator[Said]:
    served = [one for one in snapshot.services.values() if _is_served(one)]
    if snapshot.cluster.services is None:
        return
    slices: defaultdict[str, list[EndpointSlice]] = defaultdict(list)
    for one in snapshot.slices.values():
        slices[f"{one.namespace}/{one.service}"].append(one)
    named = {(one.namespace, port.name, port.protocol) for one in snapshot.workloads.values() for port in one.ports}
    for service in served:
        for message in _of(service, slices.get(service.reference, ()), named, snapshot, population):
            yield service.origin, message


def _is_served(service: Service) -> bool:
    return not service.headless and service.type is not ServiceType.EXTERNAL_NAME


def _of(
    service: Service,
    slices: Sequence[EndpointSlice],
    named: set[tuple[str, str, int]],
    snapshot: Snapshot,
    population: Population,
) -> Iterator[str]:
    is_told = bool(snapshot.workloads)  # else workloads come from elsewhere
    selects = bool(service.selector) and (not is_told or bool(population.subjects(selected(service))))
    listed = any(endpoint.addresses for one in slices for endpoint in one.endpoints)
    if not selects and not listed:
        yield f"{service.reference} has no backend: {_why(service)}"
        return
    for port in service.ports:
        if listed and not selects and not any(_has(one, port) for one in slices):
            what = f'called "{port.name}"' if port.name else "without a name"
            yield f"{service.reference} has no backend at {port.port}: no EndpointSlice of it has a port {what}"
        target = port.target
        is_named = selects and is_told and not listed and isinstance(target, str)
        if is_named and (service.namespace, target, port.protocol) not in named:
            yield f'{service.reference} has no backend at {port.port}: no workload has a port called "{target}"'
    if service.traffic_distribution:
        yield f"trafficDistribution of {service.reference} is not served: every backend gets its share"
    if service.health_check_node_port:
        yield f"healthCheckNodePort of {service.reference} is not served: nobody listens there"


def _has(slice_: EndpointSlice, port: ServicePort) -> bool:
    return not slice_.ports or any((one.name, one.protocol) == (port.name, port.protocol) for one in slice_.ports)


def _why(service: Service) -> str:
    if not service.selector:
        return "it has no selector, and no EndpointSlice lists an address for it"
    return f"no workload is {wording.selector(selected(service))}, and no EndpointSlice lists an address for it"
