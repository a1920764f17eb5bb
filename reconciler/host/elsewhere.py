"""What a commit would change on other nodes, worked out here: their rows at the commit before, and at this one.

No other host is asked. What only it knows (an address that it gave out, a row that drifted, which devices it has, what
its kernel cannot load, who did not answer its checks) may differ there, and is no reason to refuse a commit here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import DictRows
from reconciler.errors import CompileError
from reconciler.host.facts import gather
from reconciler.host.known_elsewhere import KnownElsewhere
from reconciler.host.service_facts import service_facts
from reconciler.host.target import Target
from reconciler.model.cluster import Node
from reconciler.model.facts import ServiceFacts
from reconciler.model.health import without_health
from reconciler.model.outside import NodeDevice
from reconciler.model.snapshot import Snapshot
from reconciler.store.identities import Identities
from reconciler.store.overlay import Overlay
from reconciler.store.protocol import Store

NODES = 16  # with more of them a push would wait too long
WITHIN_S = 5.0  # no node is begun after that; 16 take 10 s with 10,000 workloads and 5,000 Services
DEVICE = "underlay"  # stands for the device of another host that has the node's address: only that host knows it

ProgramsOf = Callable[[Snapshot, str], DictRows]  # of a node


class Elsewhere:
    """Between a commit and the one that this host aims at, for nodes one by one."""

    def __init__(
        self,
        before: Snapshot,
        target: Target,
        store: Store,
        programs: ProgramsOf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._before, self._after, self._here = before, without_health(target.snapshot), target.facts.node
        self._store = Overlay(store)
        self._programs = programs
        self._known = KnownElsewhere(target.facts)
        self._services: dict[int, ServiceFacts] = {}
        self._identities = {
            (one.cluster.id, one.cluster.name): Identities(self._store, one.cluster.id, one.cluster.name)
            for one in (self._before, self._after)
        }

    def lines(self) -> Iterator[str]:
        """One for each other node. Raises CompileError for a commit that would be the first not to fit a node."""
        others, until, told = sorted(self._after.nodes.keys() - {self._here}), self._clock() + WITHIN_S, 0
        while told < min(NODES, len(others)) and self._clock() < until:
            yield f"{others[told]}: {self._changes(others[told])}"
            told += 1
        if left := len(others) - told:
            yield f"plumb: no plan is worked out for {left} more node{'s' if left > 1 else ''}"

    def _changes(self, node: str) -> str:
        if node not in self._before.nodes:
            return "joins with this commit"
        cache = CompileCache()
        try:
            before = self._compiled(self._before, node, cache)
        except CompileError as error:
            return f"no plan, it cannot run {self._before.commit[:12]} either: {error}"
        try:
            after = self._compiled(self._after, node, cache)
        except CompileError as error:
            raise CompileError(f"{node}: {error}", remedy=error.remedy) from error
        counts = _counts(before, after)
        return f"plan from {self._before.commit[:12]}: {', '.join(counts) or 'no change'}"

    def _compiled(self, snapshot: Snapshot, node: str, cache: CompileCache) -> Desired:
        identities = self._identities[snapshot.cluster.id, snapshot.cluster.name]
        addresses = _addresses(snapshot.nodes[node])
        others, told = self._known.others(snapshot, node), self._known.told(snapshot, node)
        facts = gather(snapshot, node, self._store, addresses, identities, others, told=told)
        facts = replace(
            facts,
            endpoints=self._known.with_own_addresses(facts.endpoints),
            underlay={address.version: DEVICE for address in addresses},
            services=self._services_of(snapshot),
            devices=_devices(snapshot.nodes[node]),
        )
        programs = self._programs(snapshot, node)
        digests = {str(name): row.digest for name, row in programs.rows.items()}
        desired = compile_host(snapshot, facts, cache, digests)
        return replace(desired, tables={"programs": programs, **desired.tables})

    def _services_of(self, snapshot: Snapshot) -> ServiceFacts:
        """The same on every node."""
        if id(snapshot) not in self._services:
            self._services[id(snapshot)] = service_facts(snapshot, self._store)
        return self._services[id(snapshot)]


def _addresses(node: Node) -> frozenset[IPv4Address | IPv6Address]:
    return frozenset(one for one in (node.address4, node.address6) if one is not None)


def _devices(node: Node) -> dict[str, NodeDevice]:
    """Those that it names, else one, as if they had its addresses."""
    return dict.fromkeys(node.devices or (DEVICE,), NodeDevice(node.address4, node.address6))


def _counts(before: Desired, after: Desired) -> list[str]:
    found = []
    for table, rows in after.tables.items():
        if delta := diff_rows(table, rows, before.tables[table], complete=True):
            found.append(f"{table} {delta.counts}")
    return found
