"""Rows mean what the rules mean: compiled policy against a naive reading of the same rules, on random clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.engine.rows import Columns
from reconciler.model.cluster import NamedPort, Workload
from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.policy import CidrPeer, EndpointPeer, PolicyRule, PortMatch, RuleItem
from reconciler.model.selector import Operator, Requirement, Selector

from .lookup import judge
from .oracle import Party, allowed
from .worlds import (
    HERE,
    HOST_ADDRESS,
    NODES,
    PROGRAMS,
    THERE,
    compiled,
    facts_of,
    labels_of,
    origin,
    rule,
    snapshot_of,
    workload,
)

KEYS, VALUES = ("app", "tier"), ("a", "b", "c")
NETWORKS = ("10.0.0.0/8", "10.44.1.0/29", "10.44.0.0/22", "203.0.113.0/24", "203.0.113.128/25", "203.0.113.9/32")
NETWORKS += ("0.0.0.0/0", "::/0", "fd44:1::/125", "2001:db8::/32", "2001:db8:1::/48", "192.0.2.0/24")
OUTSIDE = ("203.0.113.9", "203.0.113.200", "198.51.100.1", "10.9.9.9", "2001:db8::1", "2001:db8:1::1", "2600::1")
PORTS = (0, 8, 79, 80, 81, 443, 1023, 8080, 65535)
PROTOCOLS = (1, 6, 17, 58)

named = st.sampled_from(
    [
        (),
        (NamedPort("http", 80, 6),),
        (NamedPort("http", 8080, 6),),
        (NamedPort("http", 80, 6), NamedPort("dns", 443, 17)),
    ]
)
operators = st.sampled_from(Operator)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(operators)
    valued = operator in (Operator.IN, Operator.NOT_IN)
    values = frozenset(draw(st.sets(st.sampled_from(VALUES), min_size=1))) if valued else frozenset[str]()
    return Requirement(draw(st.sampled_from(("any", "k8s"))), draw(st.sampled_from(KEYS)), operator, values)


selectors = st.lists(requirements(), max_size=2).map(lambda found: Selector(tuple(found)))
entities = st.sampled_from(("host", "world-ipv4", "remote-node", "world-ipv6")).map(
    lambda name: Selector((Requirement("reserved", name, Operator.EXISTS),))
)


@st.composite
def cidr_peers(draw: st.DrawFn) -> CidrPeer:
    network = ip_network(draw(st.sampled_from(NETWORKS)))
    inside = [other for other in map(ip_network, NETWORKS) if other.version == network.version and other != network]
    holes = [other for other in inside if other.network_address in network and other.prefixlen > network.prefixlen]
    excepts = draw(st.sets(st.sampled_from(holes))) if holes else set()
    return CidrPeer(network, tuple(sorted(excepts)), draw(st.booleans()))


ports = st.one_of(
    st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS), st.sampled_from(PROTOCOLS)).map(
        lambda drawn: PortMatch(drawn[2], min(drawn[:2]), max(drawn[:2]))
    ),
    st.sampled_from([PortMatch(6, name="http"), PortMatch(17, name="dns"), PortMatch(6), PortMatch(17)]),
)
any_peer = st.one_of(selectors.map(EndpointPeer), entities.map(EndpointPeer), cidr_peers())


@st.composite
def items(draw: st.DrawFn, direction: str, number: int) -> RuleItem:
    who = draw(st.none() | st.lists(any_peer, max_size=2).map(tuple))
    where = draw(st.none() | st.lists(ports, max_size=2).map(tuple))
    place = origin("NetworkPolicy", "policy", number)
    return RuleItem(f"{direction}[{number}]", who, where, place, draw(st.integers(0, 3)) == 0)


@st.composite
def rules(draw: st.DrawFn) -> PolicyRule:
    count = st.integers(0, 2)
    return rule(
        draw(selectors),
        tuple(draw(items("ingress", number)) for number in range(draw(count))),
        tuple(draw(items("egress", number)) for number in range(draw(count))),
        name=draw(st.sampled_from(("one", "two"))),
        isolates_ingress=draw(st.booleans()),
        isolates_egress=draw(st.booleans()),
        requires_ingress=tuple(draw(st.lists(selectors, max_size=1))) if draw(st.integers(0, 3)) == 0 else (),
    )


@st.composite
def clusters(draw: st.DrawFn) -> list[Workload]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        labels = draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)))
        where = HERE if number == 0 else draw(st.sampled_from((HERE, THERE)))
        found.append(workload(f"w{number}", labels, where, draw(named)))
    return found


def parties(workloads: Sequence[Workload]) -> list[Party]:
    endpoints = facts_of(workloads).endpoints
    found = []
    for one in workloads:
        endpoint = endpoints[one.reference]
        for address in (endpoint.address4, endpoint.address6):
            assert address
            found.append(Party(address, labels_of(one), one.ports, workload=True))
    found.append(Party(HOST_ADDRESS, reserved_labels(Reserved.HOST)))
    remote = NODES[THERE].address4
    assert remote
    found.append(Party(remote, reserved_labels(Reserved.REMOTE_NODE)))
    for text in OUTSIDE:
        kind = Reserved.WORLD_IPV6 if ":" in text else Reserved.WORLD_IPV4
        found.append(Party(IPv6Address(text) if ":" in text else IPv4Address(text), reserved_labels(kind)))
    return found


@settings(max_examples=150, deadline=None)
@given(clusters(), st.lists(rules(), max_size=4), st.data())
def test_rows_give_the_verdict_that_the_rules_give(
    workloads: list[Workload], policy: list[PolicyRule], data: st.DataObject
) -> None:
    desired = compiled(workloads, policy)
    everyone = parties(workloads)
    subjects = [
        everyone[2 * place + family] for place, one in enumerate(workloads) if one.node == HERE for family in (0, 1)
    ]
    for _ in range(12):
        subject, peer = data.draw(st.sampled_from(subjects)), data.draw(st.sampled_from(everyone))
        protocol, port = data.draw(st.sampled_from(PROTOCOLS)), data.draw(st.sampled_from(PORTS))
        egress = data.draw(st.booleans())
        expected = allowed(policy, subject, peer, protocol, port, egress=egress)
        assert judge(desired, subject.address, peer.address, protocol, port, egress=egress).passes is expected


def contents(desired: Desired) -> dict[str, object]:
    found: dict[str, object] = {"rules": desired.rules, "identities": desired.identities}
    for name, rows in desired.tables.items():
        if isinstance(rows, Columns):
            origins = [rows.origins[place] for place in rows.origin_of.tolist()]
            records = zip(rows.keys.tolist(), rows.values.tolist(), origins, strict=True)
            found[name] = sorted(records, key=str)
        else:
            found[name] = (rows.rows, rows.origins)
    return found


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(clusters(), st.lists(rules(), max_size=3)), min_size=2, max_size=5))
def test_what_was_compiled_before_changes_nothing(history: list[tuple[list[Workload], list[PolicyRule]]]) -> None:
    warm = CompileCache()
    for workloads, policy in history:
        snapshot, facts = snapshot_of(workloads, policy), facts_of(workloads)
        found = compile_host(snapshot, facts, warm, PROGRAMS)
        again = compile_host(replace(snapshot), facts, CompileCache(), PROGRAMS)
        assert contents(found) == contents(again)
