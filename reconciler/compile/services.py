"""Services of the cluster as rows of three tables: `frontends`, `services`, `backends`.

Each service is worked out by itself and remembered; what is done for all of them at once is done in columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from reconciler.compile.budget import Budget, check_services
from reconciler.compile.numbering import number
from reconciler.compile.service_direct import Direct, returning_versions
from reconciler.compile.service_join import Draws, Joined, draws, join
from reconciler.compile.service_members import ServiceMembers
from reconciler.compile.service_versions import IDS, Given, Served, served, service_name
from reconciler.engine.remembered import Remembered
from reconciler.engine.rows import Columns, DictRows
from reconciler.engine.uncollected import uncollected
from reconciler.model.balancing import (
    BACKEND_KEY,
    BACKEND_VALUE,
    FRONTEND_KEY,
    FRONTEND_VALUE,
)
from reconciler.model.facts import Facts
from reconciler.model.service import Address, EndpointSlice, Service, ServiceType
from reconciler.model.snapshot import Snapshot

TABLES = ("frontends", "services", "backends")
_SAYS = attrgetter(*(name for name in Service.__dataclass_fields__ if name not in ("origin", "labels")))
_SLICE_SAYS = attrgetter("endpoints", "ports", "weight")


class Balancing(NamedTuple):
    """`given`: what each served service was made from, by `namespace/name`."""

    frontends: Columns
    services: DictRows
    backends: Columns
    given: Mapping[str, Given]

    def tables(self) -> dict[str, Columns | DictRows]:
        return {"frontends": self.frontends, "services": self.services, "backends": self.backends}


_NONE = Balancing(
    Columns(np.empty(0, FRONTEND_KEY), np.empty(0, FRONTEND_VALUE)),
    DictRows({}),
    Columns(np.empty(0, BACKEND_KEY), np.empty(0, BACKEND_VALUE)),
    {},
)


@dataclass(slots=True)
class ServiceMemory:
    """What one compile leaves to the next.

    known      service -> what it says and was made from, and its rows
    again      service -> the same of those with backends that had to draw another number
    """

    members: ServiceMembers = field(default_factory=ServiceMembers)
    direct: Direct = field(default_factory=Direct)
    known: dict[str, tuple[object, Given, Served]] = field(default_factory=dict)
    names: tuple[tuple[str, ...], Mapping[str, int]] = ((), {})
    again: dict[str, tuple[object, Served]] = field(default_factory=dict)
    draws: Remembered[Draws] = field(default_factory=Remembered)
    joined: Remembered[Joined] = field(default_factory=Remembered)


def services(snapshot: Snapshot, facts: Facts, memory: ServiceMemory, budget: Budget | None = None) -> Balancing:
    """Empty where the cluster does not serve any. Pure but for `memory`, which decides only how long it takes.

    Raises CompileError for frontends that clash, and over the budget.
    """
    if snapshot.cluster.services is None:
        return _NONE
    serving = {name: one for name, one in snapshot.services.items() if _is_served(one)}
    with uncollected():
        return _served(snapshot, facts, memory, serving, budget or Budget())


def _served(
    snapshot: Snapshot, facts: Facts, memory: ServiceMemory, serving: Mapping[str, Service], budget: Budget
) -> Balancing:
    all_given = _given(snapshot, facts, serving, memory)
    results = [memory.known[name][2] for name in all_given]
    found = memory.draws.get((results,), partial(draws, results))
    results = _again(results, found, list(all_given), memory)
    rows = memory.joined.get((results,), partial(join, results, list(serving.values())))
    counts = len(rows.frontend_keys), len(rows.rows), len(rows.backend_keys)
    check_services(dict(zip(TABLES, counts, strict=True)), budget)
    origins = tuple(one.origin for one in serving.values())
    row_origins = dict(zip(rows.rows, (origins[place] for place in rows.row_of), strict=True))
    return Balancing(
        Columns(rows.frontend_keys, rows.frontend_values, origins, rows.frontend_of),
        DictRows(rows.rows, row_origins),
        Columns(rows.backend_keys, rows.backend_values, origins, rows.backend_of),
        all_given,
    )


def _is_served(service: Service) -> bool:
    return not service.headless and service.type is not ServiceType.EXTERNAL_NAME


def _given(snapshot: Snapshot, facts: Facts, serving: Mapping[str, Service], memory: ServiceMemory) -> dict[str, Given]:
    """What each service is made from; those that are as they were keep the very same objects, and their rows."""
    memory.members.take(snapshot, facts)
    memory.direct.take(snapshot, facts)
    slices = _slices(snapshot)
    ports = {name: [service_name(name, port) for port in one.ports] for name, one in serving.items()}
    numbers = _names(ports, memory)
    node_addresses = _node_addresses(snapshot, facts)
    assert snapshot.cluster.services is not None
    algorithm = snapshot.cluster.services.algorithm
    returning = returning_versions(snapshot, facts.node)
    said, known = facts.services, memory.known
    memory.known = {}
    for name, service in serving.items():
        of_service = tuple(slices.get(name, ()))
        members = memory.members.of(service)
        node_ports = tuple(map(said.node_ports.get, ports[name]))
        given = Given(
            service,
            of_service,
            members,
            facts.node,
            said.addresses.get(name, service.cluster_ips),
            node_addresses,
            tuple(port or 0 for port in node_ports),
            tuple(numbers[port] for port in ports[name]),
            algorithm,
            said.unhealthy.get(name, frozenset()),
            memory.direct.of(name, of_service),
            returning,
        )
        says = (_SAYS(service), tuple(map(_SLICE_SAYS, of_service)), given[2:])
        before = known.get(name)
        result = before[2] if before is not None and before[0] == says else served(given)
        memory.known[name] = (says, given, result)
    return {name: one[1] for name, one in memory.known.items()}


def _slices(snapshot: Snapshot) -> dict[str, list[EndpointSlice]]:
    found: defaultdict[str, list[EndpointSlice]] = defaultdict(list)
    for one in snapshot.slices.values():
        found[f"{one.namespace}/{one.service}"].append(one)
    return found


def _names(ports: Mapping[str, Sequence[str]], memory: ServiceMemory) -> Mapping[str, int]:
    """A number for each port of each service."""
    names = tuple(name for some in ports.values() for name in some)
    if names != memory.names[0]:
        memory.names = (names, {name: one + 1 for name, one in number(names, IDS).items()})
    return memory.names[1]


def _node_addresses(snapshot: Snapshot, facts: Facts) -> tuple[Address, ...]:
    """Where this host's node ports are: what its Node says, else whatever it has besides those among workloads."""
    node = snapshot.nodes[facts.node]
    said = tuple(one for one in (node.address4, node.address6) if one is not None)
    own = [cidr for cidr in (node.cidr4, node.cidr6) if cidr is not None]
    found = (one for one in facts.host_addresses if not any(one in cidr for cidr in own))
    return said or tuple(sorted(found, key=lambda one: (one.version, int(one))))


def _again(results: Sequence[Served], drawn: Draws, names: Sequence[str], memory: ServiceMemory) -> list[Served]:
    """The results with those numbers that were drawn again."""
    redrawn = drawn.redrawn
    before, memory.again = memory.again, {}
    found = list(results)
    for place in drawn.contested:
        says, given, _ = memory.known[names[place]]
        known = before.get(names[place])
        asked = says, redrawn
        result = known[1] if known and known[0] == asked else served(given._replace(redrawn=redrawn))
        memory.again[names[place]] = asked, result
        found[place] = result
    return found
