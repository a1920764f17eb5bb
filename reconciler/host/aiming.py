"""From a commit to what this host should hold: what others say and the store has given, then compiled.

What one pass worked out is kept for the next one, as two commits rarely differ in much.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.compile.lint import lint
from reconciler.compile.population import Population
from reconciler.compile.underlay import unreached
from reconciler.config import Config
from reconciler.engine.rows import Rows
from reconciler.host.absent import absent
from reconciler.host.cut_off import cut_off
from reconciler.host.facts import gather, this_node
from reconciler.host.outside import absent_devices, facing_outside
from reconciler.host.service_checks import Unhealthy
from reconciler.host.service_facts import ServiceFactsMemory, service_facts
from reconciler.host.sharing import Sharing
from reconciler.host.tables import HostTables
from reconciler.host.target import Target
from reconciler.kernel.host_addresses import host_addresses, host_networks
from reconciler.model.facts import Facts
from reconciler.model.health import without_health
from reconciler.model.snapshot import Snapshot, Warning
from reconciler.source.loading import Cache, load
from reconciler.store.protocol import Store

log = logging.getLogger(__name__)


class Aiming:
    def __init__(self, config: Config, tables: HostTables) -> None:
        self._config = config
        self._tables = tables
        self._manifests = Cache(config.state_directory / "manifests")
        self._compiled = CompileCache()
        self._services = ServiceFactsMemory()
        self._population = Population()
        self._left_out: set[str] = set()

    def load(self, revision: str, environment: Mapping[str, str] | None) -> Snapshot:
        """What a commit says. Raises ManifestError, RepositoryError."""
        return load(self._config.repository, revision, self._manifests, environment)

    def facts(
        self, snapshot: Snapshot, sharing: Sharing, store: Store, unhealthy: Unhealthy, *, preview: bool
    ) -> Facts:
        """Numbers and addresses are drawn from `store`; in a preview no identity is kept by that.

        Raises CompileError, StoreError.
        """
        identities = None if preview else sharing.identities
        own = host_addresses(), identities, sharing.others(), host_networks()
        found = gather(snapshot, self._config.node, store, *own)
        services = replace(service_facts(snapshot, store, self._services), unhealthy=unhealthy)
        return replace(found, services=services, devices=facing_outside(snapshot, self._config.node))

    def compiled(self, snapshot: Snapshot, facts: Facts, applied: Snapshot | None) -> Target:
        """`applied`: whose programs stay at hand. Raises CompileError."""
        programs = self._tables.programs(snapshot, applied)
        digests = {str(name): row.digest for name, row in programs.rows.items()}
        desired = compile_host(snapshot, facts, self._compiled, digests)
        self._tell_left_out(snapshot, facts)
        rows: dict[str, Rows] = {**desired.tables, "programs": programs}
        return Target(snapshot, facts, replace(desired, tables=rows))

    def _tell_left_out(self, snapshot: Snapshot, facts: Facts) -> None:
        """Nobody commits here when a node of a joined cluster goes out of reach: only the log can say so, once."""
        left_out = {one.message for one in unreached(snapshot.cluster, this_node(snapshot, self._config.node), facts)}
        for message in sorted(left_out - self._left_out):
            log.warning("%s", message)
        self._left_out = left_out

    def warnings(self, target: Target) -> tuple[Warning, ...]:
        """What is valid in a commit and looks wrong, in the order of files and lines."""
        waiting = tuple(one.warning() for one in absent(target).workloads)
        outside = (*absent_devices(target.snapshot, target.facts), *cut_off(target))
        found = target.desired.warnings + lint(without_health(target.snapshot), self._population) + waiting + outside
        return tuple(sorted(found, key=lambda warning: (warning.path, warning.line, warning.column)))
