"""Who can answer for one port of a service, and in which state.

Workloads that it selects come first, then addresses of its slices; what a slice says of a workload's address counts.
Source of who gets flows when nobody is ready: Kubernetes KEP 1669 (terminating endpoints).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from reconciler.compile.service_members import Member
from reconciler.model.balancing import BackendFlag
from reconciler.model.facts import BackendKey
from reconciler.model.service import Address, AllUnhealthy, EndpointSlice, Service, ServicePort, SliceEndpoint


class State(Enum):
    ACTIVE = "active"
    DRAINING = "draining"  # not ready, but still serving those who are there
    UNHEALTHY = "unhealthy"


_FLAGS = {State.ACTIVE: 0, State.DRAINING: BackendFlag.DRAINING, State.UNHEALTHY: BackendFlag.UNHEALTHY}


class Backend(NamedTuple):
    """`source`: kind and name of the document that it comes from. A `weight` of 0 gets no new flows.

    `direct`: it is of another host, and answers clients outside from there (services.directReturn of the Cluster).
    """

    address: Address
    port: int
    protocol: int
    local: bool
    weight: int
    state: State
    source: str
    direct: bool = False

    @property
    def key(self) -> BackendKey:
        return self.address, self.port, self.protocol

    @property
    def flags(self) -> int:
        """enum BackendFlag"""
        v6 = BackendFlag.V6 if self.address.version == 6 else 0
        state = BackendFlag.DRAINING if not self.weight else _FLAGS[self.state]
        return v6 | state | (BackendFlag.LOCAL if self.local else BackendFlag.DIRECT if self.direct else 0)


def backends(
    service: Service,
    port: ServicePort,
    members: Iterable[Member],
    slices: Iterable[EndpointSlice],
    node: str,
    unhealthy: Collection[BackendKey],
    direct: Collection[Address] = (),
    returning: Collection[int] = (),
) -> list[Backend]:
    """Each address once. `node`: this host; `unhealthy`: what does not answer its checks; `direct`: those addresses of
    slices that such workloads of other nodes have as may answer directly; `returning`: IP versions over which they do.
    """
    found: dict[BackendKey, Backend] = {}
    for member in members:
        number = port.target if isinstance(port.target, int) else member.port(port.target, port.protocol)
        for address in member.addresses if number else ():
            source = f"Workload {member.name}"
            found[address, number, port.protocol] = Backend(
                address,
                number,
                port.protocol,
                member.local,
                member.weight,
                State.ACTIVE,
                source,
                address.version in member.direct and address.version in returning,
            )
    for slice_ in slices:
        for one in _of_slice(service, port, slice_, node):
            known = found.get(one.key)
            said = one._replace(direct=one.address.version in returning and one.address in direct)
            found[one.key] = one._replace(local=known.local, direct=known.direct) if known else said
    if not unhealthy:
        return list(found.values())
    return [
        one._replace(state=State.UNHEALTHY) if one.state is State.ACTIVE and key in unhealthy else one
        for key, one in found.items()
    ]


def _of_slice(service: Service, port: ServicePort, slice_: EndpointSlice, node: str) -> Iterable[Backend]:
    number = next((one.port or _default(port) for one in slice_.ports if _is_same(one.name, one.protocol, port)), 0)
    if not slice_.ports:
        number = _default(port)
    for endpoint in slice_.endpoints if number else ():
        state = _state(endpoint, service)
        for address in endpoint.addresses if state else ():
            assert state is not None
            local = endpoint.node == node
            source = f"EndpointSlice {slice_.reference}"
            yield Backend(address, number, port.protocol, local, slice_.weight, state, source)


def _is_same(name: str, protocol: int, port: ServicePort) -> bool:
    return (name, protocol) == (port.name, port.protocol)


def _default(port: ServicePort) -> int:
    """Where a slice names no number."""
    return port.target if isinstance(port.target, int) else port.port


def _state(endpoint: SliceEndpoint, service: Service) -> State | None:
    """None: it is dead."""
    if endpoint.ready or service.publishes_not_ready:
        return State.ACTIVE
    return State.DRAINING if endpoint.serving else None


def chosen(found: Sequence[Backend], all_unhealthy: AllUnhealthy) -> list[Backend]:
    """Those of them that get new flows."""
    weighty = [one for one in found if one.weight]
    ready = [one for one in weighty if one.state is not State.DRAINING]
    if not ready:
        return weighty
    healthy = [one for one in ready if one.state is State.ACTIVE]
    return healthy or (ready if all_unhealthy is AllUnhealthy.OPEN else [])
