"""What no document can say by itself: that what they name is there, and that no two claim the same thing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from reconciler.errors import Fault
from reconciler.model.cluster import Cluster, StoreKind, Workload
from reconciler.model.cluster import Node as Host
from reconciler.model.policy import PolicyRule
from reconciler.model.policy_test import PolicyTest
from reconciler.model.service import EndpointSlice, Service
from reconciler.model.snapshot import Warning
from reconciler.source import policy_tests
from reconciler.source.addresses import Address, Network, address_like
from reconciler.source.manifests import Document
from reconciler.source.metadata import DEFAULT_NAMESPACE, Identity
from reconciler.source.node import Place
from reconciler.source.phrases import nearest


@dataclass(frozen=True, slots=True)
class Placed:
    """A document in a file."""

    path: str
    document: Document

    def __str__(self) -> str:
        return f"{self.path}:{self.document.place.line}"

    def fault(self, message: str, field: str = "") -> Fault:
        """A fault at one of its places, or at the document."""
        place: Place = self.document.places.get(field, self.document.place)
        return Fault(self.path, place.line, place.column, message)


@dataclass(slots=True)
class Documents:
    """All documents of a tree; those of our own kinds by what they are called."""

    clusters: list[Placed] = field(default_factory=list)
    hosts: dict[str, Placed] = field(default_factory=dict)
    namespaces: dict[str, Placed] = field(default_factory=dict)
    workloads: dict[str, Placed] = field(default_factory=dict)
    policies: list[Placed] = field(default_factory=list)
    services: dict[str, Placed] = field(default_factory=dict)
    slices: dict[str, Placed] = field(default_factory=dict)
    policy_tests: dict[str, Placed] = field(default_factory=dict)
    prefilters: dict[str, Placed] = field(default_factory=dict)


def sort(placed: Iterable[Placed]) -> tuple[Documents, list[Fault]]:
    """Documents by kind, and a fault for each whose name another one of its kind has already."""
    found, faults = Documents(), []
    seen: dict[Identity, Placed] = {}
    for one in placed:
        identity, content = one.document.identity, one.document.content
        if identity in seen:
            faults.append(one.fault(f"a second {identity}; the first is at {seen[identity]}"))
            continue
        seen[identity] = one
        if identity.kind == "Cluster":
            found.clusters.append(one)
        elif identity.kind == "Node":
            found.hosts[identity.name] = one
        elif identity.kind == "Namespace":
            found.namespaces[identity.name] = one
        elif isinstance(content, Workload):
            found.workloads[content.origin.name] = one
        elif isinstance(content, Service):
            found.services[content.origin.name] = one
        elif isinstance(content, EndpointSlice):
            found.slices[content.origin.name] = one
        elif isinstance(content, PolicyTest):
            found.policy_tests[content.origin.name] = one
        elif identity.kind == "Prefilter":
            found.prefilters[identity.name] = one
        else:
            found.policies.append(one)
    return found, faults


def check(documents: Documents) -> list[Fault]:
    """Every fault that concerns more than one document."""
    checks: tuple[Callable[[Documents], Iterator[Fault]], ...] = (
        cluster_faults,
        overlapping_cidrs,
        addresses_in_cidrs,
        repeated_addresses,
        workload_faults,
        repeated_interfaces,
        probe_faults,
        policy_test_faults,
    )
    return [fault for one in checks for fault in one(documents)]


def cluster_faults(documents: Documents) -> Iterator[Fault]:
    if not documents.clusters:
        yield Fault(".", 0, 0, "there is no Cluster document: exactly one is needed (kind: Cluster)")
    for extra in documents.clusters[1:]:
        yield extra.fault(f"a second Cluster; the first is at {documents.clusters[0]}")


def overlapping_cidrs(documents: Documents) -> Iterator[Fault]:
    """CIDRs are nested or apart: in the order of their first addresses, each is compared with the one still open."""
    claims: list[tuple[Network, str, Placed]] = [
        (cidr, f"cidr{cidr.version}", placed)
        for placed, host in _hosts(documents)
        for cidr in (host.cidr4, host.cidr6)
        if cidr is not None
    ]
    claims.sort(key=lambda claim: (claim[0].version, int(claim[0].network_address), claim[0].prefixlen))
    held: Network | None = None
    holder: Placed | None = None
    for cidr, where, placed in claims:
        if held is not None and held.version == cidr.version and cidr.network_address in held:
            name = holder.document.identity.name if holder else ""
            yield placed.fault(f"cidr {cidr} overlaps {held} of Node {name} at {holder}", where)
        else:
            held, holder = cidr, placed


def addresses_in_cidrs(documents: Documents) -> Iterator[Fault]:
    """CIDRs hold no node's address: what is sent to that node would be sent to where workloads are."""
    hosts = list(_hosts(documents))
    owners = {
        one: placed for placed, host in reversed(hosts) for one in (host.address4, host.address6) if one is not None
    }
    addresses = sorted(owners, key=_place)
    for placed, host in hosts:
        for cidr in (host.cidr4, host.cidr6):
            first = 0 if cidr is None else bisect_left(addresses, _place(cidr.network_address), key=_place)
            if cidr is not None and first < len(addresses) and addresses[first] in cidr:
                address, owner = addresses[first], owners[addresses[first]]
                whose = "this Node" if owner is placed else f"{owner.document.identity} at {owner}"
                message = f"cidr {cidr} holds the address {address} of {whose}: choose one without addresses of nodes"
                yield placed.fault(message, f"cidr{cidr.version}")


def _place(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def repeated_addresses(documents: Documents) -> Iterator[Fault]:
    """Fixed addresses of workloads and addresses of nodes: each is one's own."""
    owners: dict[Address, Placed] = {}
    for placed in (*documents.hosts.values(), *documents.workloads.values()):
        content = placed.document.content
        assert isinstance(content, Host | Workload)
        for address in (content.address4, content.address6):
            if address is None:
                continue
            if address in owners:
                message = f"address {address} is already that of {owners[address].document.identity}"
                yield placed.fault(f"{message} at {owners[address]}", f"address{address.version}")
            owners.setdefault(address, placed)


def workload_faults(documents: Documents) -> Iterator[Fault]:
    """Its node is there, and has what the workload needs: CIDRs of its own, or of the cluster's pools."""
    pools = {pool.cidr.version: pool.cidr for _, cluster in _clusters(documents) for pool in cluster.pools}
    for placed, workload in _workloads(documents):
        known = documents.hosts.get(workload.node)
        if known is None:
            yield placed.fault(f'there is no Node "{workload.node}"; {nearest(workload.node, documents.hosts)}', "node")
            continue
        host = known.document.content
        assert isinstance(host, Host)
        fixed = [address for address in (workload.address4, workload.address6) if address is not None]
        if not (host.cidr4 or host.cidr6 or pools):
            yield placed.fault(f"Node {host.name} has no cidrs to take an address from ({known})", "node")
            continue
        own = {4: host.cidr4 or pools.get(4), 6: host.cidr6 or pools.get(6)}
        for address in fixed:
            if fault := _address_fault(address, own[address.version]):
                yield placed.fault(f"{fault} of Node {host.name} at {known}", f"address{address.version}")


def _address_fault(address: Address, cidr: IPv4Network | IPv6Network | None) -> str:
    if cidr is None or address not in cidr:
        return f"address {address} is not inside {cidr or f'an IPv{address.version} cidr'}"
    if address == cidr.network_address or (cidr.version == 4 and address == cidr.broadcast_address):
        return f"address {address} is the first or last of {cidr}, which no workload can have,"
    return ""


def repeated_interfaces(documents: Documents) -> Iterator[Fault]:
    owners: dict[tuple[str, str, str], Placed] = {}
    for placed, workload in _workloads(documents):
        key = (workload.node, workload.netns, workload.interface)
        if key in owners:
            other = owners[key]
            yield placed.fault(
                f"{workload.interface} in {workload.netns} is already that of {other.document.identity} at {other}",
                "netns",
            )
        owners.setdefault(key, placed)


def probe_faults(documents: Documents) -> Iterator[Fault]:
    for placed, cluster in _clusters(documents):
        for index, probe in enumerate(cluster.probes):
            for end, name in (("from", probe.source), ("to", probe.host)):
                if name not in documents.workloads and not (end == "to" and address_like(name)):
                    hint = nearest(name, documents.workloads)
                    yield placed.fault(f'there is no Workload "{name}"; {hint}', f"probes[{index}].{end}")


def policy_test_faults(documents: Documents) -> Iterator[Fault]:
    """Whom an expectation names is there."""
    if not documents.policy_tests:
        return
    namespaces = {*documents.namespaces, *unnamed_namespaces(documents), DEFAULT_NAMESPACE}
    for placed in documents.policy_tests.values():
        content = placed.document.content
        assert isinstance(content, PolicyTest)
        for named, message in policy_tests.faults(content, documents.workloads, namespaces):
            yield placed.fault(message, named)


def unnamed_namespaces(documents: Documents) -> Mapping[str, Placed]:
    """namespace -> the first document that lives in it, for those that no Namespace document describes."""
    found: dict[str, Placed] = {}
    inhabitants = (documents.workloads, documents.services, documents.slices)
    for placed in (*(one for kind in inhabitants for one in kind.values()), *documents.policies):
        namespace = placed.document.identity.namespace
        if namespace and namespace not in documents.namespaces:
            found.setdefault(namespace, placed)
    return found


def namespace_warnings(unnamed: Mapping[str, Placed]) -> Iterator[Warning]:
    for name, placed in unnamed.items():
        if name != DEFAULT_NAMESPACE:
            place = placed.document.place
            message = f'there is no Namespace document for "{name}": it has no labels but its name'
            yield Warning(placed.path, place.line, place.column, message)


def slice_warnings(documents: Documents) -> Iterator[Warning]:
    """Slices whose service is not there."""
    for placed in documents.slices.values():
        content = placed.document.content
        assert isinstance(content, EndpointSlice)
        name = f"{content.namespace}/{content.service}"
        if content.service and name not in documents.services:
            place = placed.document.places["service"]
            message = f'there is no Service "{name}": {nearest(name, documents.services)}'
            yield Warning(placed.path, place.line, place.column, message)


def address_warnings(documents: Documents) -> Iterator[Warning]:
    """Workloads that nodes other than their own cannot tell from anybody: the embedded store serves one host.

    A warning a node and family, at the first of them.
    """
    if any(cluster.store.kind is not StoreKind.EMBEDDED for _, cluster in _clusters(documents)):
        return
    if len({workload.node for _, workload in _workloads(documents)}) < 2:
        return
    found: dict[tuple[str, str], list[Placed]] = {}
    for placed, workload in _workloads(documents):
        host = documents.hosts[workload.node].document.content
        assert isinstance(host, Host)
        fixed = {4: workload.address4, 6: workload.address6}
        missing = [f"IPv{family}" for family, cidr in ((4, host.cidr4), (6, host.cidr6)) if cidr and not fixed[family]]
        if missing:
            found.setdefault((host.name, " and ".join(missing)), []).append(placed)
    for (node, families), (first, *others) in found.items():
        place = first.document.place
        more = f" and of {len(others)} more" if others else ""
        message = (
            f"the {families} address of {first.document.identity}{more} is chosen by {node} and not "
            f"known to other nodes, whose rules take it for unmanaged: give {'them' if others else 'it'} `addresses`"
        )
        yield Warning(first.path, place.line, place.column, message)


def cluster_of(documents: Documents) -> Cluster | None:
    return next((cluster for _, cluster in _clusters(documents)), None)


def services_of(documents: Documents) -> Iterator[tuple[Placed, Service]]:
    for placed in documents.services.values():
        assert isinstance(placed.document.content, Service)
        yield placed, placed.document.content


def rules_of(placed: Placed) -> tuple[PolicyRule, ...]:
    content = placed.document.content
    assert isinstance(content, tuple)
    return content


def _clusters(documents: Documents) -> Iterator[tuple[Placed, Cluster]]:
    for placed in documents.clusters:
        content = placed.document.content
        assert isinstance(content, Cluster)
        yield placed, content


def _hosts(documents: Documents) -> Iterator[tuple[Placed, Host]]:
    for placed in documents.hosts.values():
        assert isinstance(placed.document.content, Host)
        yield placed, placed.document.content


def _workloads(documents: Documents) -> Iterator[tuple[Placed, Workload]]:
    for placed in documents.workloads.values():
        assert isinstance(placed.document.content, Workload)
        yield placed, placed.document.content
