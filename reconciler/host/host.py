"""One host and what can be done to it: plan a commit, apply a plan, repair what drifted, roll back, list.

Every caller comes through here, so a plan means the same whoever asked for it. Nothing is kept in memory that a restart
would miss: what the host holds is read from the kernel, what it should hold is compiled from the commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, cast

from reconciler.compile.services import TABLES as SERVICE_TABLES
from reconciler.config import Config
from reconciler.engine.apply import apply, repair
from reconciler.engine.change import Delta
from reconciler.engine.diff import diff_rows
from reconciler.engine.journal import Journal
from reconciler.engine.lock import host_lock
from reconciler.engine.plan import Plan
from reconciler.engine.record import Record
from reconciler.engine.rows import Columns, DictRows
from reconciler.engine.seals import Seals
from reconciler.engine.table import Table
from reconciler.engine.uncollected import uncollected
from reconciler.errors import ApplyError, PlanStale, PlumbError, RepositoryError, StoreError, UsageError
from reconciler.host.absent import Absent, absent, named
from reconciler.host.aiming import Aiming
from reconciler.host.applied import applied, applied_commit, commit_before
from reconciler.host.comparing import Between, compared
from reconciler.host.connection_probe import connection_probes
from reconciler.host.facts import heard, placed, release_gone, this_node
from reconciler.host.gone import Gone, give_back
from reconciler.host.health_netns import clean, health_netns, prepare
from reconciler.host.hold import Hold, HoldFile
from reconciler.host.listing import Listing
from reconciler.host.nodes import nodes_shown
from reconciler.host.obstacles import refuse_obstructed
from reconciler.host.outside import facing_outside
from reconciler.host.rehung import Rehung, rehung
from reconciler.host.resolver import TargetResolver
from reconciler.host.service_checks import Unhealthy, checks, unhealthy_by_rows
from reconciler.host.sharing import Joined
from reconciler.host.status import host_status
from reconciler.host.stores import Stores
from reconciler.host.tables import HostTables, WatchedMap
from reconciler.host.target import Target
from reconciler.host.touched import Touched, among, are_gone, changed_keys
from reconciler.host.ways import crosses_versions, way_taken
from reconciler.kernel.capabilities import require_capabilities
from reconciler.kernel.host_addresses import host_addresses, host_networks
from reconciler.model.cluster import Cluster, DirectReturn
from reconciler.model.facts import Facts
from reconciler.model.health import with_health
from reconciler.model.snapshot import Snapshot, Warning
from reconciler.observe.counters import Counters
from reconciler.observe.fullness import Fullness
from reconciler.source.repository import resolve
from reconciler.store.overlay import Overlay
from reconciler.store.protocol import Store

log = logging.getLogger(__name__)

ATTEMPTS = 3  # to apply before somebody else's changes are blamed


class Host:
    """`with Host.open(config) as host:`; needs root for everything but reading the repository.

    `lock` is what `apply` holds while it writes; whoever holds the host already passes a null context.
    `target` is the applied commit as it was last compiled; None until it is known. `absent` is what it waited for when
    it was last compared. `unhealthy`: backends that do not answer their checks; counts from the next aim on.
    """

    def __init__(self, config: Config, lock: AbstractContextManager[object] | None = None) -> None:
        self.config = config
        self.target: Target | None = None
        self.absent = Absent()
        self.unhealthy: Unhealthy = {}
        config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = Journal(config.state_directory / "journal")
        self._hold = HoldFile(config.state_directory)
        self._lock = lock
        self._stores = Stores(config)
        self._tables = HostTables(config)
        self._aiming = Aiming(config, self._tables)
        self._seals = Seals()
        self._gone = Gone()
        self._health_netns = health_netns(config.pin_root)

    @classmethod
    @contextmanager
    def open(cls, config: Config, lock: AbstractContextManager[object] | None = None) -> Iterator[Host]:
        host = cls(config, lock)
        try:
            yield host
        finally:
            host.close()

    def close(self) -> None:
        self._tables.close()
        self._stores.close()

    @property
    def tables(self) -> Mapping[str, Table]:
        return self._tables.by_name

    @property
    def shared(self) -> tuple[Store, str] | None:
        """The store that this host shares with others, and the name of their cluster; None before its first commit."""
        if self.target is None:
            return None
        cluster = self.target.snapshot.cluster
        return self._stores.of(cluster).beneath, cluster.name

    @property
    def mirrored(self) -> tuple[Store, str] | None:
        """The same as this host last heard of it: what is read comes from memory, also while the store is away."""
        if self.target is None:
            return None
        cluster = self.target.snapshot.cluster
        return self._stores.of(cluster).store, cluster.name

    @property
    def base(self) -> str:
        """The commit that was applied last; '' on a host that never had one."""
        return applied_commit(self.journal)

    # What should be

    def resolve(self, revision: str) -> str:
        """The full name of the commit. Raises RepositoryError."""
        return resolve(self.config.repository, revision)

    def load(self, revision: str, environment: Mapping[str, str] | None = None) -> Snapshot:
        """What a commit says. Raises ManifestError, RepositoryError."""
        return self._aiming.load(revision, environment)

    @uncollected()
    def aim(self, revision: str, environment: Mapping[str, str] | None = None, preview: bool = False) -> Target:
        """Every row this host should hold at a commit. A preview allocates nothing for good.

        Raises ManifestError, RepositoryError, CompileError, StoreError.
        """
        snapshot = self.load(revision, environment)
        cluster = snapshot.cluster
        with self._stores.looked_at(cluster) if preview else nullcontext(self._stores.of(cluster)) as sharing:
            store: Store = Overlay(sharing.store) if preview else sharing.store
            snapshot = placed(snapshot, self.config.node, store)
            here = this_node(snapshot, self.config.node)
            if not preview:
                sharing.register(here, self._takes(snapshot))
            snapshot = with_health(snapshot, here, self._health_netns)
            facts = self._aiming.facts(snapshot, sharing, store, self.unhealthy, preview=preview)
        return self._compiled_for(snapshot, facts)

    def _compiled_for(self, snapshot: Snapshot, facts: Facts) -> Target:
        return self._aiming.compiled(snapshot, facts, self.target.snapshot if self.target else None)

    def programs_of(self, snapshot: Snapshot, node: str) -> DictRows:
        """Of another node, at a commit. Any thread."""
        return self._tables.programs_of(snapshot, node)

    def warnings(self, target: Target) -> tuple[Warning, ...]:
        """What is valid in a commit and looks wrong, in the order of files and lines."""
        return self._aiming.warnings(target)

    # From what is to what should be

    def plan(
        self,
        revision: str,
        environment: Mapping[str, str] | None = None,
        tables: Collection[str] | None = None,
        prune: bool = True,
    ) -> Plan:
        """What would change; nothing is written. `tables` restricts it; without `prune` nothing is removed."""
        return self.compare(self.aim(revision, environment, preview=True), tables, prune)

    def compare(self, target: Target, tables: Collection[str] | None = None, prune: bool = True) -> Plan:
        """Raises UsageError for a table that does not exist, KernelError if rows cannot be read."""
        return self._compare(target, self._look_for_absent(target), tables, prune)

    def _look_for_absent(self, target: Target) -> Absent:
        missing = absent(target)
        if target is self.target:
            self.absent = missing
        return missing

    def _compare(
        self,
        target: Target,
        missing: Absent,
        tables: Collection[str] | None,
        prune: bool = True,
        seals: Seals | None = None,
        between: Between = tuple,
    ) -> Plan:
        unknown = set(tables or ()) - set(self.tables)
        if unknown:
            raise UsageError(f"no table {', '.join(sorted(unknown))}; there are {', '.join(self.tables)}")
        self._tables.look_into(target, self.target)
        desired, complete = missing.without(target.desired.tables), target.desired.complete and prune

        def compare(name: str) -> Delta | None:
            table, rows = self.tables[name], desired[name]
            return seals.diff(table, rows, complete) if seals else diff_rows(name, rows, table.live(), complete)

        deltas = compared((name for name in self.tables if tables is None or name in tables), compare, between)
        base = self.base
        # Some tables of another commit do not make it the applied one: a pass over all tables does.
        commit = target.commit if tables is None or not base else base
        return Plan(commit, base, deltas)

    def apply(self, plan: Plan) -> Record:
        """Exactly this plan. Raises PlanStale, ApplyError, ProbeFailed, Busy, PermissionMissing, what `aim` raises."""
        require_capabilities()
        if plan.base != self.base:
            at = f"{self.base[:12] or 'no commit'}, not at {plan.base[:12] or 'none'}"
            raise PlanStale(f"this host is at {at}, from which the plan was made")
        try:
            target = self.aim(plan.commit)
            self._tables.look_into(target, self.target)
            return self._transact(plan, target, absent(target))
        finally:
            self._leave_others()

    def converge(self, revision: str, tables: Collection[str] | None = None, prune: bool = True) -> Record | None:
        """Bring the host to a commit, or these tables of it; None if they are there already.

        Raises what `plan` and `apply` raise.
        """
        require_capabilities()
        try:
            return self._converge(self.aim(revision), tables, prune)
        finally:
            self._leave_others()

    def _converge(self, target: Target, tables: Collection[str] | None, prune: bool) -> Record | None:
        for attempt in range(1, ATTEMPTS + 1):
            missing = absent(target)
            plan = self._compare(target, missing, tables, prune)
            if not plan and plan.commit == self.base and not self.journal.unfinished:
                if plan.commit == target.commit:
                    self._settle(target, missing)
                return None
            try:
                return self._transact(plan, target, missing)
            except PlanStale as error:
                if attempt == ATTEMPTS:
                    raise
                log.info("planning again commit=%s reason=%s", target.commit, error)
        raise AssertionError("the loop returns or raises")

    def converge_on_request(self, revision: str, tables: Collection[str] | None = None) -> Record | None:
        """As `converge`; and if it is not the branch's commit, hold that one back until a newer one comes."""
        if tables is not None:
            return self.converge(revision, tables)
        commit = self.resolve(revision)
        with self._holding_back_unless(commit):
            return self.converge(commit)

    def apply_on_request(self, plan: Plan) -> Record:
        """As `apply`, with the same consequence."""
        with self._holding_back_unless(plan.commit):
            return self.apply(plan)

    @contextmanager
    def _holding_back_unless(self, asked: str) -> Iterator[None]:
        """The branch's commit is held back if it is another one than what somebody asks for, unless that fails.

        Before the first write: who is killed in the middle must not go back to it at the next start.
        """
        before = self._hold.read()
        with suppress(RepositoryError):
            head = self.resolve(self.config.ref)
            self._hold.write(replace(before, held="" if head == asked else head))
        try:
            yield
        except BaseException:
            self._hold.write(before)
            raise

    def _transact(self, plan: Plan, target: Target, missing: Absent) -> Record:
        with self._lock or host_lock(self.config.run_directory / "lock", "plumb"):
            if self.journal.unfinished:
                self.journal.recover(self.tables)
                raise PlanStale("a transaction that was interrupted had to be undone first")
            prepare(target.snapshot, self.config.node, self._health_netns)
            refuse_obstructed(plan)
            again = rehung(plan, lambda: self.compare(target), self.repair)
            probes = [*again, *connection_probes(target, missing)]
            notes = named(missing.workloads)
            try:
                with self._between_ways(target):
                    record = apply(plan, self.tables, self.journal, lock=nullcontext(), probes=probes, notes=notes)
            except ApplyError as error:
                if again:
                    self._hang_as_before()
                if absent(target) == missing:
                    raise
                raise PlanStale(f"network namespaces came or went meanwhile: {error}") from error
        if plan.commit == target.commit:
            self._settle(target, missing)
        return record

    def _takes(self, snapshot: Snapshot) -> str:
        """In which way what others bring to backends is taken: the applied commit's, which `snapshot` may be."""
        applied = self.target.snapshot if self.target else snapshot
        is_attached = applied.commit == self.base and not self.journal.unfinished
        return way_taken(applied.cluster, crosses=crosses_versions()) if is_attached else DirectReturn.NONE.value

    @contextmanager
    def _between_ways(self, target: Target) -> Iterator[None]:
        """Others are told before the programs change that nothing is taken any more; and that it is, if they stay."""
        old = self._takes(target.snapshot)
        if old == way_taken(target.snapshot.cluster, crosses=crosses_versions()):
            yield
            return
        self._stores.tell(DirectReturn.NONE.value)
        try:
            yield
        except BaseException:
            self._stores.tell(self._takes(target.snapshot))
            raise

    def _hang_as_before(self) -> None:
        """The applied commit's rows, after a transaction was taken back that had moved links."""
        if self.target is None:
            self.recall()
        if target := self.target:
            with suppress(PlumbError):  # what was taken back says why already, and what is left is drift
                Rehung(lambda: self.compare(target), self.repair).check()

    def _settle(self, target: Target, missing: Absent) -> None:
        self.target, self.absent = target, missing
        self._leave_others()
        sharing = self._stores.of(target.snapshot.cluster)
        sharing.tell(self._takes(target.snapshot))
        clean(target.snapshot, self.config.node, self._health_netns)
        with suppress(StoreError):  # what is left is given back after the next commit
            release_gone(target.snapshot, self.config.node, sharing.store)
        sharing.announce(target.snapshot, target.facts)

    # The cluster

    def join(self, joined: Joined) -> None:
        """Be one of the cluster's nodes from now on, as a daemon is; before the first commit is looked at."""
        self._stores.join(joined)

    def _leave_others(self) -> None:
        """Stay only in the store of the applied commit; before the first one, in the one that was tried last."""
        self._stores.keep(self.target.snapshot.cluster if self.target else None)

    def hear(self) -> Plan | None:
        """Aim anew at the applied commit, with what other hosts say now; None if that changes no row.

        Only rows that change are read. Raises what `aim` raises but for what comes of repositories.
        """
        if (old := self.target) is None:
            return None
        sharing = self._stores.of(old.snapshot.cluster)
        facts = heard(old.snapshot, old.facts, sharing.others())
        if facts.services.unhealthy != self.unhealthy:
            facts = replace(facts, services=replace(facts.services, unhealthy=self.unhealthy))
        if facts is old.facts:
            return None
        self.target = new = self._compiled_for(old.snapshot, facts)
        self._tables.look_into(new)
        before, after = (self.absent.without(one.desired.tables) for one in (old, new))
        deltas: list[Delta] = []
        for name, rows in after.items():
            if changed := diff_rows(name, rows, before[name], complete=True):
                keys = changed_keys(changed)
                live = self.tables[name].live(cast(Any, keys))
                if delta := diff_rows(name, among(rows, keys), live, new.desired.complete):
                    deltas.append(delta)
        return Plan(new.commit, new.commit, tuple(deltas)) if deltas else None

    def collect(self) -> None:
        """Give back what nobody in the cluster uses. Raises StoreError."""
        if self.target is not None and self._stores.has_joined:
            snapshot, sharing = self.target.snapshot, self._stores.of(self.target.snapshot.cluster)
            sharing.collect(self.target.facts, time.monotonic())
            if self.config.node == min(sharing.registered(), default=self.config.node):  # one host is enough
                self._gone.collect(sharing.store, snapshot.cluster.name, snapshot.commit, snapshot.nodes)

    # Drift

    def recover(self) -> Record | None:
        """At a start: undo what a crash interrupted, and know again what the applied commit wants.

        Raises PermissionMissing where nothing could be undone.
        """
        require_capabilities()
        self.recall()
        record = self.journal.recover(self.tables)
        if self.target is not None:
            self._stores.tell(self._takes(self.target.snapshot))
        if self.target is not None and any(checks(self.target.desired.services)):
            self.unhealthy = unhealthy_by_rows(
                self.target.desired.services, cast(Columns, self.tables["backends"].live())
            )
            self.recall()
        return record

    def recall(self) -> None:
        """Compile the applied commit again; one that can no longer be read (a forced push) leaves `target` None."""
        if not self.base:
            return
        try:
            self.target = self.aim(self.base)
        except PlumbError as error:
            log.warning("the applied commit cannot be read commit=%s error=%s", self.base, error)
        else:
            self._tables.look_into(self.target)
            self._stores.of(self.target.snapshot.cluster).announce(self.target.snapshot, self.target.facts)

    def drift(self, tables: Collection[str] | None = None, between: Between = tuple) -> Plan | None:
        """What differs from the applied commit in these tables; None if nothing does.

        Whose address is the host's own follows the host: where that changed, the ipcache is compared too. Rows may be
        put right `between` two tables.
        """
        if self.target is None:
            return None
        if (tables is None or "addresses" in tables) and self._is_elsewhere(self.target):
            self.recall()
            tables = None if tables is None else {*tables, "ipcache", "devices", "attachments", *SERVICE_TABLES}
        missing = self._look_for_absent(self.target)
        return self._compare(self.target, missing, tables, seals=self._seals, between=between) or None

    def _is_elsewhere(self, target: Target) -> bool:
        """Whether the host's own addresses, or its devices to the outside, are not what they were."""
        facts = target.facts
        known = facts.host_addresses, facts.host_networks, facts.devices
        return known != (host_addresses(), host_networks(), facing_outside(target.snapshot, facts.node))

    def drift_at(self, touched: Collection[Touched]) -> Plan | None:
        """The same of the rows behind what was touched, as far as they are known; no other row is read."""
        if self.target is None:
            return None
        desired, complete = self.absent.without(self.target.desired.tables), self.target.desired.complete
        deltas = []
        for name, keys in self._tables.rows_at(touched, desired).items():
            gone = are_gone(name, keys, touched)
            live = DictRows({}) if gone else self.tables[name].live(cast(Any, keys))
            if delta := diff_rows(name, among(desired[name], keys), live, complete):
                deltas.append(delta)
        return Plan(self.target.commit, self.target.commit, tuple(deltas)) if deltas else None

    def repair(self, plan: Plan) -> None:
        """Write it, without journal and probes; the caller holds the host."""
        if self.target is not None:
            prepare(self.target.snapshot, self.config.node, self._health_netns)
        if not self._tables.mend(plan):
            repair(plan, self.tables)

    # Back

    def rollback(self, to: str | None = None) -> Record | None:
        """Apply an earlier commit (without `to`: the one before), and hold the present one back until a newer comes."""
        present = self.base
        if not present:
            raise UsageError("nothing was applied to this host yet")
        target = self.resolve(to) if to else commit_before(self.journal, present)
        if target == present:
            raise UsageError(f"this host is at {target[:12]} already")
        with self._holding_back_unless(target):
            return self.converge(target)

    @property
    def hold(self) -> Hold:
        return self._hold.read()

    def suspend(self, reason: str) -> None:
        """Until `resume` the daemon neither applies commits nor repairs drift; what is enforced stays enforced."""
        self._hold.write(replace(self._hold.read(), suspended=reason))

    def resume(self) -> None:
        """Neither suspended nor holding a commit back any more."""
        self._hold.write(Hold())

    # The datapath at work; each is quick, and does nothing while there is no datapath

    def collect_flows(self) -> None:
        self._tables.collect_flows()

    def counters(self) -> Counters | None:
        return self._tables.counters()

    def fullness(self) -> Mapping[str, Fullness]:
        """Map of flows -> how full it was when flows were collected last; empty before that."""
        return self._tables.fullness()

    def events(self) -> int:
        """A descriptor of the ring buffer of events. Raises KernelError while there is none."""
        return self._tables.events()

    def listen_for(self, mask: int) -> None:
        """Which events the programs send: `enum event_mask`, bpf/lib/state.h."""
        self._tables.listen_for(mask)

    def watched_maps(self) -> dict[int, WatchedMap]:
        """By map id, every map whose rows are ours."""
        return self._tables.watched_maps()

    def is_our_link(self, number: int) -> bool:
        """Whether the link of this id attached one of our programs when they were last read. Any thread may ask."""
        return self._tables.is_our_link(number)

    # For people

    def row_counts(self, between: Between = tuple) -> dict[str, int]:
        """Table -> live rows. Rows may be put right `between` two tables."""
        counts = {}
        for name, table in self.tables.items():
            counts[name] = len(table.live())
            between()
        return counts

    def resolver(self) -> TargetResolver | None:
        return TargetResolver(self.target) if self.target else None

    def listing(self) -> Listing:
        """What is there, explained by the applied commit."""
        if self.target is None:
            self.recall()
        return Listing(self.target, self.tables)

    def nodes(self) -> list[dict[str, Any]]:
        """The cluster's nodes, by name; empty before the first commit. Raises StoreError."""
        if self.target is None:
            self.recall()
        if (target := self.target) is None:
            return []
        sharing = self._stores.of(target.snapshot.cluster)
        return list(nodes_shown(target, {**sharing.others().registered, **sharing.registered()}))

    def forget(self, node: str) -> int:
        """Take back what a node said of itself, and if it is gone what it was given: how many keys.

        Raises StoreError.
        """
        if self.target is None:
            self.recall()
        if self.target is None:
            return 0
        snapshot, sharing = self.target.snapshot, self._stores.of(self.target.snapshot.cluster)
        given = 0 if node in snapshot.nodes else give_back(sharing.store, snapshot.cluster.name, node)
        return given + sharing.forget(node)

    def status(self) -> dict[str, Any]:
        """What can be said without a daemon."""
        return host_status(
            self.config,
            self.journal,
            list(applied(self.journal)),
            self.hold,
            self._applied_snapshot(),
            self._store_status(),
        )

    def _store_status(self) -> dict[str, Any]:
        """Only a daemon knows."""
        if self.target is None or not self._stores.has_joined:
            return {}
        return self._stores.of(self.target.snapshot.cluster).status()

    def _applied_snapshot(self) -> Snapshot | None:
        if self.target is not None:
            return self.target.snapshot
        with suppress(PlumbError):
            return self.load(self.base) if self.base else None
        return None


def _sharing_key(cluster: Cluster) -> object:
    return cluster.name, cluster.id, cluster.store, cluster.clusters
