"""Which backends this host checks, and which of them were unhealthy when it was last known.

The latter lies in the rows of backends, so a daemon that starts anew gives no flow to a backend that was down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reconciler.compile.service_backends import State
from reconciler.compile.service_versions import Given, reachable
from reconciler.engine.rows import Columns
from reconciler.model.balancing import BackendFlag, address_of
from reconciler.model.facts import BackendKey
from reconciler.model.service import HealthCheck

Unhealthy = Mapping[str, frozenset[BackendKey]]  # service (`namespace/name`) -> backends


class Check(NamedTuple):
    """One backend of one service, and how to ask it."""

    service: str
    backend: BackendKey
    how: HealthCheck


def checks(services: Mapping[str, Given]) -> Iterator[Check]:
    """Of all backends that could get new flows."""
    for name, given in services.items():
        if given.service.health is None:
            continue
        ports = zip(given.service.ports, given.node_ports, strict=True)
        found = {one.key: one for port, node_port in ports for one in reachable(given, port, node_port)}
        for key, one in found.items():
            if one.weight and one.state is not State.DRAINING:
                yield Check(name, key, given.service.health)


def unhealthy_by_rows(services: Mapping[str, Given], live: Columns) -> Unhealthy:
    """What the live rows of `backends` say of those that are checked."""
    rows = live.values[live.values["flags"] & BackendFlag.UNHEALTHY != 0]
    flagged = {(address_of(int(row["high"]), int(row["low"])), int(row["port"]), int(row["protocol"])) for row in rows}
    found: defaultdict[str, set[BackendKey]] = defaultdict(set)
    for check in checks(services) if flagged else ():
        if check.backend in flagged:
            found[check.service].add(check.backend)
    return {service: frozenset(backends) for service, backends in found.items()}
