"""Workloads of this node whose network namespace or cgroup is not there: their rows wait for it, nobody else's do.

What could not be written, or would lead nowhere, is left out of what the host should hold: what lies in the namespace,
the workload's link, and what hangs on that. Identity and policy stay, and so do the routes to its addresses, as
unreachable ones: packets for it end here and do not leave by the default route. Of a cgroup that is not there only its
programs wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from reconciler.compile.members import addresses
from reconciler.engine.change import DictDelta
from reconciler.engine.plan import Plan
from reconciler.engine.rows import DictRows, Key, Row, Rows
from reconciler.host.target import Target
from reconciler.kernel import netns
from reconciler.kernel.cgroups import is_cgroup
from reconciler.model.datapath import CgroupKey
from reconciler.model.facts import Facts
from reconciler.model.health import is_health
from reconciler.model.network import HOST_NETNS, Route, RouteKey, SysctlKey
from reconciler.model.snapshot import Snapshot, Warning

UNREACHABLE = Route("", kind="unreachable")
_NAMED = 5  # workloads that a text for people names


@dataclass(frozen=True, slots=True)
class AbsentWorkload:
    """`path` and `line` are those of its manifest. `cgroup`: it is not the namespace that is missing, but this; without
    a workload it is the node's.
    """

    workload: str
    netns: str
    path: str
    line: int
    cgroup: str = ""

    @property
    def message(self) -> str:
        if self.cgroup:
            whose = f"workload {self.workload}" if self.workload else "this node"
            return f"{whose}: cgroup {self.cgroup} is missing; the programs of its sockets wait for it"
        return f"workload {self.workload}: network namespace {self.netns} is missing; its link and rows wait for it"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"

    def warning(self) -> Warning:
        return Warning(self.path, self.line, 1, self.message)

    def to_json(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "netns": self.netns,
            "cgroup": self.cgroup,
            "path": self.path,
            "line": self.line,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Absent:
    """`devices`: host ends of links that wait. Empty while every namespace is there."""

    workloads: tuple[AbsentWorkload, ...] = ()
    devices: frozenset[str] = frozenset()
    addresses: frozenset[IPv4Address | IPv6Address] = frozenset()

    @classmethod
    def of(cls, workloads: Iterable[AbsentWorkload], facts: Facts) -> Absent:
        waiting = tuple(workloads)
        unconnected = [one.workload for one in waiting if not one.cgroup]
        endpoints = [facts.endpoints[key] for key in unconnected if key in facts.endpoints]
        devices = frozenset(one.ifname for one in endpoints)
        return cls(waiting, devices, frozenset(address for one in endpoints for address in addresses(one)))

    def __bool__(self) -> bool:
        return bool(self.workloads)

    @property
    def namespaces(self) -> frozenset[str]:
        return frozenset(one.netns for one in self.workloads if not one.cgroup)

    @property
    def cgroups(self) -> frozenset[str]:
        return frozenset(one.cgroup for one in self.workloads if one.cgroup)

    def without(self, tables: Mapping[str, Rows]) -> Mapping[str, Rows]:
        """The rows that can be there now."""
        if not self:
            return tables
        namespaces, cgroups = self.namespaces, self.cgroups
        return {
            name: self._left(rows, namespaces, cgroups) if isinstance(rows, DictRows) else rows
            for name, rows in tables.items()
        }

    def covers(self, key: Key, row: Row) -> bool:
        """Whether a row of a small table is there, or not there, with one of the namespaces or cgroups."""
        return _is_of(key, row, self.devices, self.namespaces, self.cgroups) or _address(key) in self.addresses

    def _left(self, rows: DictRows, namespaces: frozenset[str], cgroups: frozenset[str]) -> DictRows:
        left = {}
        for key, row in rows.rows.items():
            if not _is_of(key, row, self.devices, namespaces, cgroups):
                left[key] = row
            elif isinstance(key, RouteKey) and key.netns == HOST_NETNS:
                left[key] = UNREACHABLE
        return DictRows(left, rows.origins)


def _is_of(key: Key, row: Row, devices: frozenset[str], namespaces: frozenset[str], cgroups: frozenset[str]) -> bool:
    if isinstance(key, CgroupKey):
        return key.cgroup in cgroups
    place = getattr(key, "netns", HOST_NETNS)
    if place != HOST_NETNS:
        return place in namespaces
    if isinstance(key, SysctlKey):
        return not devices.isdisjoint(key.name.split("/"))
    return key in devices or getattr(key, "ifname", "") in devices or getattr(row, "ifname", "") in devices


def _address(key: Key) -> object:
    """Whose way it is, where the key tells: of an endpoint, a neighbour, a route of full length."""
    if isinstance(key, RouteKey):
        return key.destination.network_address if key.destination.num_addresses == 1 else None
    return getattr(key, "address", key)


def unexplained(plan: Plan, moved: Absent) -> Plan:
    """The plan without what changes because namespaces came or went."""
    if not moved:
        return plan
    left = (_unexplained(delta, moved) if isinstance(delta, DictDelta) else delta for delta in plan.deltas)
    return Plan(plan.commit, plan.base, tuple(delta for delta in left if delta))


def _unexplained(delta: DictDelta, moved: Absent) -> DictDelta:
    before, after = (
        {key: row for key, row in rows.items() if not moved.covers(key, row)} for rows in (delta.before, delta.after)
    )
    return DictDelta(delta.table, before, after, delta.origins)


def absent_workloads(snapshot: Snapshot, node: str) -> tuple[AbsentWorkload, ...]:
    """By reference; 4 us a namespace. The health endpoint never waits: we make its own.

    Raises KernelError if one cannot be looked at.
    """
    mine = [one for _, one in sorted(snapshot.workloads.items()) if one.node == node and not is_health(one)]
    missing = {path for path in {one.netns for one in mine} if netns.is_missing(path)}
    return tuple(
        AbsentWorkload(one.reference, one.netns, one.origin.path, one.origin.line)
        for one in mine
        if one.netns in missing
    )


def absent_cgroups(snapshot: Snapshot, node: str) -> tuple[AbsentWorkload, ...]:
    """The same for cgroups, the node's own included. Raises KernelError without a cgroup2 file system."""
    mine = [one for _, one in sorted(snapshot.workloads.items()) if one.node == node and one.cgroup]
    missing = [
        AbsentWorkload(one.reference, one.netns, one.origin.path, one.origin.line, one.cgroup)
        for one in mine
        if one.cgroup and not is_cgroup(one.cgroup)
    ]
    host = snapshot.nodes.get(node)
    if host is not None and host.cgroup and not is_cgroup(host.cgroup):
        missing.append(AbsentWorkload("", HOST_NETNS, host.origin.path, host.origin.line, host.cgroup))
    return tuple(missing)


def absent(target: Target) -> Absent:
    """As it is now. Raises KernelError if a namespace or a cgroup cannot be looked at."""
    snapshot, node = target.snapshot, target.facts.node
    return Absent.of((*absent_workloads(snapshot, node), *absent_cgroups(snapshot, node)), target.facts)


def named(workloads: Iterable[AbsentWorkload]) -> tuple[str, ...]:
    """A line each, of the first few."""
    lines = [str(one) for one in workloads]
    more = len(lines) - _NAMED
    return (*lines[:_NAMED], *([f"{more} more wait for theirs; plumb status -o json names all"] if more > 0 else []))
