"""Small clusters as values, to compile in tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.model.cluster import Cluster, NamedPort, Node, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.labels import NAMESPACE_KEY, LabelSet, workload_labels
from reconciler.model.origin import Origin
from reconciler.model.policy import CidrPeer, EndpointPeer, Peer, PolicyRule, PortMatch, RuleItem
from reconciler.model.selector import Requirement, Selector, label_is
from reconciler.model.snapshot import Snapshot

COMMIT = "c" * 40
HERE, THERE = "alpha", "beta"
HOST_ADDRESS = IPv4Address("192.0.2.1")
PROGRAMS = {"from_workload": "digest-from", "to_workload": "digest-to"}
TCP, UDP = 6, 17
ANYBODY = EndpointPeer(Selector())
WORLD = EndpointPeer(Selector((label_is("reserved", "world-ipv4"),)))
HOST = EndpointPeer(Selector((label_is("reserved", "host"),)))


def origin(kind: str, name: str, line: int = 1) -> Origin:
    return Origin(f"{kind.lower()}/{name}.yaml", line, kind, name, COMMIT)


def node(name: str, octet: int) -> Node:
    return Node(
        name,
        origin("Node", name),
        cidr4=IPv4Network(f"10.44.{octet}.0/24"),
        cidr6=IPv6Network(f"fd44:{octet}::/112"),
        address4=IPv4Address(f"192.0.2.{octet}"),
    )


CLUSTER = Cluster("demo", origin("Cluster", "demo"))
NODES = {HERE: node(HERE, 1), THERE: node(THERE, 2)}


def workload(
    name: str, labels: Mapping[str, str], where: str = HERE, ports: Iterable[NamedPort] = (), namespace: str = "default"
) -> Workload:
    netns = f"/run/netns/{name}"
    return Workload(namespace, name, where, origin("Workload", name), netns, labels=dict(labels), ports=tuple(ports))


def labels_of(one: Workload) -> LabelSet:
    return workload_labels(one.namespace, one.labels, {}, CLUSTER.name)


def facts_of(workloads: Iterable[Workload], *, complete: bool = True) -> Facts:
    """Identities from 256 on in the order of their first workload; addresses x.x.octet.n of the node's CIDRs."""
    numbers: dict[LabelSet, int] = {}
    endpoints = {}
    for place, one in enumerate(workloads, 2):
        identity = numbers.setdefault(labels_of(one), 256 + len(numbers))
        home = NODES[one.node]
        assert home.cidr4
        assert home.cidr6
        endpoints[one.reference] = Endpoint(
            one.reference,
            one.node,
            identity,
            f"pl{place}",
            one.address4 or home.cidr4[place],
            one.address6 or home.cidr6[place],
            f"02:00:00:00:00:{place:02x}",
        )
    known = {number: labels for labels, number in numbers.items()}
    known |= {int(kind): reserved_labels(kind) for kind in Reserved if kind is not Reserved.UNKNOWN}
    return Facts(HERE, known, endpoints, frozenset({HOST_ADDRESS}), complete)


def snapshot_of(workloads: Iterable[Workload], rules: Iterable[PolicyRule] = (), **cluster: object) -> Snapshot:
    changed = replace(CLUSTER, **cluster)  # type: ignore[arg-type]
    return Snapshot(COMMIT, changed, NODES, {}, {one.reference: one for one in workloads}, tuple(rules))


def compiled(workloads: Iterable[Workload], rules: Iterable[PolicyRule] = (), **cluster: object) -> Desired:
    listed = list(workloads)
    return compile_host(snapshot_of(listed, rules, **cluster), facts_of(listed), CompileCache(), PROGRAMS)


def app(name: str) -> Selector:
    return Selector((label_is("k8s", NAMESPACE_KEY, "default"), label_is("any", "app", name)))


def with_labels(*requirements: Requirement) -> Selector:
    return Selector(requirements)


def peers(*selectors: Selector) -> tuple[Peer, ...]:
    return tuple(EndpointPeer(selector) for selector in selectors)


def cidr(network: str, *excepts: str, workloads: bool = False) -> CidrPeer:
    return CidrPeer(ip_network(network), tuple(map(ip_network, excepts)), workloads)


def tcp(first: int, last: int | None = None) -> PortMatch:
    return PortMatch(TCP, first, first if last is None else last)


def item(
    field: str, who: tuple[Peer, ...] | None, ports: tuple[PortMatch, ...] | None = None, *, deny: bool = False
) -> RuleItem:
    return RuleItem(field, who, ports, origin("NetworkPolicy", "policy", 10), deny)


def rule(
    subject: Selector,
    ingress: tuple[RuleItem, ...] = (),
    egress: tuple[RuleItem, ...] = (),
    name: str = "policy",
    **more: object,
) -> PolicyRule:
    """Isolates the directions that it has entries for, unless told otherwise."""
    isolates = {"isolates_ingress": bool(ingress), "isolates_egress": bool(egress), **more}
    where = origin("NetworkPolicy", name)
    return PolicyRule(
        "NetworkPolicy",
        "default",
        name,
        subject,
        where,
        ingress=ingress,
        egress=egress,
        **isolates,  # type: ignore[arg-type]
    )


def address_of(one: Workload, workloads: Iterable[Workload], version: int = 4) -> IPv4Address | IPv6Address:
    endpoint = facts_of(workloads).endpoints[one.reference]
    found = endpoint.address4 if version == 4 else endpoint.address6
    assert found
    return found
