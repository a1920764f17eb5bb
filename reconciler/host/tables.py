"""The tables of this host, and where each of them looks.

Tables over netlink look into namespaces: those of the workloads that a commit names, and of the one applied before, so
that what is gone from a commit is found and removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from reconciler.bpf.syscalls import get, held
from reconciler.compile.prefilter import selecting
from reconciler.config import Config
from reconciler.datapath.features import has
from reconciler.datapath.loader import Datapath
from reconciler.datapath.objects import Option
from reconciler.datapath.options import map_sizes_of, options_of
from reconciler.engine.change import ColumnDelta
from reconciler.engine.plan import Plan
from reconciler.engine.rows import DictRows, Rows
from reconciler.engine.table import Table
from reconciler.errors import KernelError
from reconciler.host.target import Target
from reconciler.host.touched import GoneRow, Keys, Touched, TouchedMap, TouchedNamespace, TouchedPin, inside, united
from reconciler.kernel import cgroups
from reconciler.kernel.addresses import AddressesTable
from reconciler.kernel.attachments import AttachmentsTable
from reconciler.kernel.backends import BackendsTable
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.carriers import CarriersTable
from reconciler.kernel.cgroups import CgroupsTable
from reconciler.kernel.devices import DevicesTable
from reconciler.kernel.endpoints import EndpointsTable
from reconciler.kernel.frontends import FrontendsTable
from reconciler.kernel.generation import Generation
from reconciler.kernel.ipcache import IpcacheTable
from reconciler.kernel.links import LinksTable
from reconciler.kernel.neighbours import NeighboursTable
from reconciler.kernel.overlays import OverlaysTable
from reconciler.kernel.pinned_links import key_of_pin
from reconciler.kernel.plain import PlainTable
from reconciler.kernel.policy import PolicyTable
from reconciler.kernel.prefilter import PrefilterTable
from reconciler.kernel.programs import ProgramsTable
from reconciler.kernel.routes import RoutesTable
from reconciler.kernel.rules import RulesTable
from reconciler.kernel.services import ServicesTable
from reconciler.kernel.sysctls import SysctlsTable
from reconciler.kernel.tunnels import TunnelsTable
from reconciler.model.datapath import AttachmentKey, CgroupKey, ProgramRow
from reconciler.model.network import SysctlKey
from reconciler.model.snapshot import Snapshot
from reconciler.observe import counters, fullness
from reconciler.observe.counters import Counters
from reconciler.observe.fullness import Fullness

log = logging.getLogger(__name__)

TABLES_OF_MAPS = {
    "endpoints4": frozenset(("endpoints",)),
    "endpoints6": frozenset(("endpoints",)),
    "tunnels4": frozenset(("tunnels",)),
    "tunnels6": frozenset(("tunnels",)),
    "ipcache4": frozenset(("ipcache",)),
    "ipcache6": frozenset(("ipcache",)),
    "cidr4": frozenset(("ipcache",)),
    "cidr6": frozenset(("ipcache",)),
    "policy": frozenset(("policy",)),
    "backends": frozenset(("backends",)),
    "services": frozenset(("services",)),
    "service_tables": frozenset(("services",)),
    "service_sources4": frozenset(("services",)),
    "service_sources6": frozenset(("services",)),
    "frontends4": frozenset(("frontends",)),
    "frontends6": frozenset(("frontends",)),
    "state": frozenset(("ipcache", "policy", "frontends")),
    "devices": frozenset(("devices",)),
    "plain4": frozenset(("plain",)),
    "plain6": frozenset(("plain",)),
    "prefilter4": frozenset(("prefilter",)),
    "prefilter6": frozenset(("prefilter",)),
}


_ELSEWHERE = 8  # settings of other nodes that are kept: two commits, with a Prefilter and without


@dataclass(frozen=True, slots=True)
class WatchedMap:
    """`tables`: those whose rows lie in the map. `key_size` in bytes."""

    tables: frozenset[str]
    key_size: int


class _Settings(NamedTuple):
    """What the programs depend on; two commits rarely differ in it."""

    options: tuple[tuple[str, Option], ...]
    map_sizes: tuple[tuple[str, int], ...]


class HostTables:
    """`by_name` is in the order in which plans show them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._namespaces: frozenset[str] = frozenset()
        self._sysctls: frozenset[SysctlKey] = frozenset()
        self._datapaths: dict[_Settings, Datapath] = {}
        self._elsewhere = lru_cache(_ELSEWHERE)(self._datapath)
        self.maps = PinnedMaps(config.pin_root)
        self.generation = Generation(self.maps)
        self._endpoints = EndpointsTable(self.maps)
        self._tunnels = TunnelsTable(self.maps)
        self._ipcache = IpcacheTable(self.maps, self.generation)
        self._policy = PolicyTable(self.maps, self.generation)
        self._prefilter = PrefilterTable(self.maps)
        self._backends = BackendsTable(self.maps, self.generation)
        self._services = ServicesTable(self.maps, self.generation)
        self._frontends = FrontendsTable(self.maps, self.generation)
        self._attachments = AttachmentsTable(config.pin_root, tcx=has("tcx"))
        self._cgroups = CgroupsTable(config.pin_root)
        self._live: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._subjects: dict[int, int] = {}
        tables: tuple[Table, ...] = (
            LinksTable(self._places),
            OverlaysTable(),
            SysctlsTable(lambda: self._sysctls),
            ProgramsTable(config.pin_root, self._load),
            self._endpoints,
            self._tunnels,
            PlainTable(self.maps),
            DevicesTable(self.maps),
            self._prefilter,
            self._ipcache,
            self._policy,
            self._backends,
            self._services,
            self._frontends,
            self._attachments,
            self._cgroups,
            CarriersTable(self._attachments.guarded),
            AddressesTable(self._places),
            NeighboursTable(self._places),
            RoutesTable(self._places),
            RulesTable(self._places),
        )
        self.by_name: Mapping[str, Table] = {table.name: table for table in tables}

    def close(self) -> None:
        """What the last flip left behind is gone when this returns."""
        self.generation.finish()

    def _places(self) -> frozenset[str]:
        return self._namespaces

    def look_into(self, *targets: Target | None) -> None:
        """From now on read what these commits name, and nothing else."""
        known = [target for target in targets if target is not None]
        self._namespaces = frozenset[str]().union(*(target.namespaces for target in known))
        rows = (target.desired.tables["sysctls"] for target in known)
        self._sysctls = frozenset(key for one in rows if isinstance(one, DictRows) for key in one.rows)

    # Programs

    def programs(self, snapshot: Snapshot, applied: Snapshot | None = None) -> DictRows:
        """The programs as this version and a commit's settings make them; those of the applied one stay at hand."""
        kept = [self._settings(one, self._config.node) for one in (applied, snapshot) if one is not None]
        self._datapaths = {one: self._datapaths.get(one) or self._datapath(one) for one in kept}
        return DictRows(dict(self._datapaths[kept[-1]].program_rows()))

    def programs_of(self, snapshot: Snapshot, node: str) -> DictRows:
        """Those of another node, as this kernel and this version would have them. Any thread."""
        return DictRows(dict(self._elsewhere(self._settings(snapshot, node)).program_rows()))

    def _settings(self, snapshot: Snapshot, node: str) -> _Settings:
        denies = bool(selecting(snapshot, node))
        options = options_of(snapshot.cluster, prefilter=denies, cpus=counters.possible_cpus())
        return _Settings(tuple(sorted(options.items())), tuple(sorted(map_sizes_of(snapshot.cluster).items())))

    def _datapath(self, settings: _Settings) -> Datapath:
        options = {**dict(settings.options), "redirect_peer": has("redirect_peer")}
        left_out = () if has("xdp") else ("xdp",)
        return Datapath(self._config.pin_root, options, dict(settings.map_sizes), left_out=left_out)

    def _load(self, name: str, row: ProgramRow) -> None:
        for datapath in self._datapaths.values():
            if datapath.program_rows().get(name) == row:
                datapath.load_program(name, row)
                return
        raise KernelError(f"program {name} {row.digest} is not what this version and configuration would load")

    def collect_flows(self) -> None:
        """Forget expired flows, and count the others. Nothing happens while there is no datapath."""
        live = self.by_name["programs"].live()
        for name in fullness.COLLECTORS:
            row = live.rows.get(name) if isinstance(live, DictRows) else None
            if row is None or not row.digest:
                continue
            path = self._config.pin_root / "programs" / f"{name}-{row.digest}"
            with held(get(str(path))) as program:
                self._live |= fullness.collect(name, program)

    def fullness(self) -> Mapping[str, Fullness]:
        """Map -> how full it was when flows were collected last; empty before that."""
        found = {name: self.maps.find(name) for name in self._live}
        return {name: Fullness(self._live[name], map_.info.max_entries) for name, map_ in found.items() if map_}

    def counters(self) -> Counters | None:
        """None while there is no datapath."""
        found = self.maps.find("counters")
        return counters.read(found) if found else None

    def events(self) -> int:
        """The descriptor of the ring buffer. Raises KernelError while there is no datapath."""
        return self.maps.open("events").descriptor

    def listen_for(self, mask: int) -> None:
        if self.maps.find("state"):
            self.generation.set_events(mask)

    def watched_maps(self) -> dict[int, WatchedMap]:
        """By id: every map whose rows are ours, inner maps of policy included."""
        found: dict[int, WatchedMap] = {}
        self._names, self._subjects = {}, {}
        for name, tables in TABLES_OF_MAPS.items():
            map_ = self.maps.find(name)
            if map_ is None:
                continue
            found[map_.info.id] = WatchedMap(tables, map_.info.key_size)
            self._names[map_.info.id] = name
            if name == "policy":
                keys, inner = map_.read()
                rows = WatchedMap(tables, self.maps.policy_layout[0].itemsize)
                self._subjects = dict(zip(inner.tolist(), keys["subject"].tolist(), strict=True))
                found.update(dict.fromkeys(self._subjects, rows))
        return found

    def is_our_link(self, number: int) -> bool:
        return any(table.key_of_link(number) is not None for table in (self._attachments, self._cgroups))

    # Drift of few rows

    def rows_at(self, touched: Iterable[Touched], desired: Mapping[str, Rows]) -> dict[str, Keys]:
        """Table -> keys of the rows that may have been changed, as far as they are known; maps as last watched."""
        found: dict[str, list[Keys]] = {}
        for one in touched:
            for name, keys in self._rows_at(one, desired):
                found.setdefault(name, []).append(keys)
        return {name: keys for name, parts in found.items() if len(keys := united(parts))}

    def _rows_at(self, touched: Touched, desired: Mapping[str, Rows]) -> Iterator[tuple[str, Keys]]:
        if isinstance(touched, TouchedMap):
            yield from self._rows_in(touched)
        elif isinstance(touched, TouchedNamespace):
            yield from ((name, inside(touched.netns, desired[name])) for name in touched.tables)
        elif isinstance(touched, GoneRow):
            yield touched.table, (touched.key,)
        elif isinstance(touched, TouchedPin):
            yield from _named((key_of_pin(touched.name), cgroups.key_of_pin(touched.name)))
        else:
            yield from _named((self._attachments.key_of_link(touched.id), self._cgroups.key_of_link(touched.id)))

    def _rows_in(self, touched: TouchedMap) -> Iterator[tuple[str, Keys]]:
        name = self._names.get(touched.id, "")
        if touched.id in self._subjects:
            yield "policy", self._policy.keys_of(self._subjects[touched.id], touched.key)
        elif name.startswith("endpoints"):
            yield "endpoints", self._endpoints.keys_of(name, touched.key)
        elif name.startswith("tunnels"):
            yield "tunnels", self._tunnels.keys_of(name, touched.key)
        elif name.startswith(("ipcache", "cidr")):
            yield "ipcache", self._ipcache.keys_of(name, touched.key)
        elif name.startswith("frontends"):
            yield "frontends", self._frontends.keys_of(name, touched.key)
        elif name.startswith("prefilter"):
            yield "prefilter", self._prefilter.keys_of(name, touched.key)
        elif name == "backends":
            yield "backends", self._backends.keys_of(touched.key)
        elif name.startswith("service"):
            yield "services", self._services.keys_of(name, touched.key)

    def mend(self, plan: Plan) -> bool:
        """Write a plan of one table in place, if that table and its state allow it; else nothing counts yet."""
        if len(plan.deltas) != 1 or not isinstance(delta := plan.deltas[0], ColumnDelta):
            return False
        for table in (self._ipcache, self._policy, self._frontends):
            if table.name == delta.table:
                return table.mend(delta.upserts(), delta.deletes())
        return False


def _named(keys: tuple[AttachmentKey | None, CgroupKey | None]) -> Iterator[tuple[str, Keys]]:
    """What is known of a link, in its table."""
    for name, key in zip(("attachments", "cgroups"), keys, strict=True):
        if key is not None:
            yield name, (key,)
