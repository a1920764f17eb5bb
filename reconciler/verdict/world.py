"""A case as a host would compile it: its ends become workloads with identities and addresses, its rules become rows.

Policed ends are workloads of this host, the others of another; this host and addresses outside the cluster are what the
ipcache says they are. An end without an address gets one that no ipBlock of IPv4 covers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Judging, compile_judging
from reconciler.model.cluster import Cluster, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_CLUSTER, FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin
from reconciler.model.snapshot import Snapshot
from reconciler.verdict.case import Case, CaseError, End, IpAddress, Settings, Standing
from reconciler.verdict.rows import Ipcache, Peer, PolicyRows

_HERE, _ELSEWHERE = "here", "elsewhere"
_NAMESPACE = "ends"
_UNPLACED = int(IPv6Address("100::"))  # RFC 6666: addresses that nobody has
_MAC = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class World:
    """`peers`: end -> what the ipcache says of its address."""

    ends: Mapping[str, End]
    peers: Mapping[str, Peer]
    addresses: Mapping[str, IpAddress]
    judging: Judging
    policy: PolicyRows


class Numbers:
    """Identities that no other case of the same process has, until they begin again."""

    def __init__(self) -> None:
        self._next = FIRST_CLUSTER

    def take(self, count: int) -> int:
        """The first of `count` in a row."""
        if self._next + count > FIRST_LOCAL:
            self._next = FIRST_CLUSTER
        self._next += count
        return self._next - count


def compiled(case: Case, numbers: Numbers) -> World:
    """Raises CaseError for two ends with one address, CompileError for what no row can express."""
    addresses = _addresses(case.ends)
    snapshot = _snapshot(case, addresses)
    judging = compile_judging(snapshot, _facts(case, snapshot, addresses, numbers), CompileCache())
    ipcache = Ipcache(judging.ipcache)
    peers = {name: ipcache.find(address) for name, address in addresses.items()}
    return World(case.ends, peers, addresses, judging, PolicyRows(judging.policy))


def _addresses(ends: Mapping[str, End]) -> dict[str, IpAddress]:
    found = {name: end.address or IPv6Address(_UNPLACED + place) for place, (name, end) in enumerate(ends.items(), 1)}
    owners: dict[IpAddress, str] = {}
    for name, address in found.items():
        other = owners.setdefault(address, name)
        if other != name and (ends[name].labels is not None or ends[other].labels is not None):
            raise CaseError(f"{other} and {name} have the same address, {address}")
    return found


def _snapshot(case: Case, addresses: Mapping[str, IpAddress]) -> Snapshot:
    origin = Origin("", 0, "Cluster", case.settings.cluster, "")
    workloads = [
        Workload(
            _NAMESPACE,
            name,
            _HERE if end.standing is Standing.POLICED else _ELSEWHERE,
            Origin("", 0, "Workload", name, ""),
            netns="",
            ports=tuple(end.ports),
            audit=end.audit,
        )
        for name, end in case.ends.items()
        if end.labels is not None and end.standing is not Standing.HOST
    ]
    return Snapshot("", _cluster(case.settings, origin), {}, {}, {one.reference: one for one in workloads}, case.rules)


def _cluster(settings: Settings, origin: Origin) -> Cluster:
    return Cluster(
        settings.cluster,
        origin,
        enforcement=settings.enforcement,
        allow_localhost=settings.allow_localhost,
        ipblock_matches_workloads=settings.ipblock_matches_pods,
    )


def _facts(case: Case, snapshot: Snapshot, addresses: Mapping[str, IpAddress], numbers: Numbers) -> Facts:
    shared = dict.fromkeys(end.labels for end in case.ends.values() if end.labels is not None and not end.reserved)
    known: dict[LabelSet, int] = {labels: number for number, labels in enumerate(shared, numbers.take(len(shared)))}
    identities = {number: labels for labels, number in known.items()}
    identities |= {int(kind): reserved_labels(kind) for kind in Reserved if kind is not Reserved.UNKNOWN}
    endpoints = {}
    for key, workload in snapshot.workloads.items():
        end, address = case.ends[workload.name], addresses[workload.name]
        assert end.labels is not None
        endpoints[key] = Endpoint(
            key,
            workload.node,
            end.reserved or known[end.labels],
            "",
            address if isinstance(address, IPv4Address) else None,
            address if isinstance(address, IPv6Address) else None,
            _MAC,
        )
    hosts = frozenset(addresses[name] for name, end in case.ends.items() if end.standing is Standing.HOST)
    return Facts(_HERE, identities, endpoints, hosts)
