"""What nobody answers to, and CIDRs that pass over somebody, is said with place and reason; what is right is not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from reconciler.compile.lint import lint
from reconciler.compile.population import Population
from reconciler.model.labels import CLUSTER_KEY, NAMESPACE_KEY
from reconciler.model.policy import CidrPeer, PortMatch, Scope, ServicePeer
from reconciler.model.selector import Operator, Requirement, Selector, label_is
from reconciler.model.service import EndpointSlice, Service, SliceEndpoint

from .lints import FROM_CLIENT, commit, labelled, said
from .worlds import NODES, TCP, UDP, app, cidr, item, origin, peers, rule, tcp, with_labels, workload

NARROW = rule(app("web"), (FROM_CLIENT,), name="narrow")


# Who is not there


def test_a_good_policy_is_not_warned_of() -> None:
    assert said(rule(app("web"), (FROM_CLIENT,)), rule(app("db"), name="closed", isolates_ingress=True)) == []


def test_a_policy_that_selects_no_workload_names_the_label_and_the_nearest() -> None:
    assert said(rule(app("wbe"), (FROM_CLIENT,))) == [
        'NetworkPolicy/default/policy selects no workload: no workload is app=wbe; did you mean "web"?'
    ]
    assert said(rule(labelled(teir="front"), (FROM_CLIENT,))) == [
        'NetworkPolicy/default/policy selects no workload: no workload is teir=front; did you mean "tier"?'
    ]


def test_a_selector_whose_labels_are_there_on_different_workloads_says_so() -> None:
    [message] = said(rule(labelled(app="db", tier="front"), (FROM_CLIENT,)))
    assert message.endswith("no workload is all of app=db, tier=front")


def test_a_peer_that_is_not_there_is_said_at_its_entry() -> None:
    [warning] = lint(commit(rule(app("web"), (item("ingress[0]", peers(app("clinet"))),))))
    assert str(warning) == (
        "networkpolicy/policy.yaml:10:1: warning: ingress[0] of NetworkPolicy/default/policy: "
        'no workload is app=clinet; did you mean "client"?'
    )


def test_every_peer_that_is_not_there_is_said() -> None:
    assert len(said(rule(app("web"), (item("ingress[0]", peers(app("a"), app("client"), app("b"))),)))) == 2


def test_a_namespace_that_is_not_there_is_said_as_one() -> None:
    wanted = with_labels(label_is("k8s", NAMESPACE_KEY, "defualt"), label_is("any", "app", "web"))
    [message] = said(rule(app("web"), (item("ingress[0]", peers(wanted)),)))
    assert message.endswith('there is no namespace "defualt"; did you mean "default"?')


def test_a_requirement_that_nobody_fulfils_leaves_nobody() -> None:
    [message] = said(rule(app("web"), (FROM_CLIENT,), requires_ingress=(labelled(team="a"),)))
    assert message.startswith("fromRequires of NetworkPolicy/default/policy leaves nobody: no workload is team=a")


@pytest.mark.parametrize(
    "selector",
    [
        labelled(**{CLUSTER_KEY: "other"}),
        with_labels(label_is("container", "image", "web")),
        with_labels(Requirement("reserved", "ingress", Operator.EXISTS)),
        with_labels(Requirement("any", "absent", Operator.DOES_NOT_EXIST)),
        Selector(),
    ],
)
def test_peers_that_are_there_or_told_of_elsewhere_are_not_warned_of(selector: Selector) -> None:
    assert said(rule(app("web"), (item("ingress[0]", peers(selector), (tcp(80),)),))) == []


def test_subjects_that_are_no_workloads_are_not_warned_of() -> None:
    init = with_labels(label_is("reserved", "init"))
    assert said(rule(init, (FROM_CLIENT,)), replace(rule(app("none"), (FROM_CLIENT,)), scope=Scope.NODES)) == []


def test_without_workloads_nobody_is_missed() -> None:
    snapshot = replace(commit(rule(app("nobody"), (FROM_CLIENT,))), workloads={})
    assert lint(snapshot) == ()


# Services


def toward(peer: ServicePeer, *services: Service, slices: tuple[EndpointSlice, ...] = ()) -> list[str]:
    snapshot = commit(rule(app("client"), egress=(item("egress[0]", (peer,)),)))
    with_services = replace(
        snapshot,
        services={one.reference: one for one in services},
        slices={one.reference: one for one in slices},
    )
    return [warning.message.partition(": ")[2] for warning in lint(with_services)]


def service(name: str, selector: dict[str, str]) -> Service:
    return Service("default", name, origin("Service", name), selector=selector)


def test_a_service_that_is_not_there_is_said() -> None:
    found = toward(ServicePeer("default", "bd"), service("db", {"app": "db"}))
    assert found == ['there is no Service "bd" in namespace default']
    by_labels = toward(ServicePeer("", selector=labelled(tier="data")), service("db", {"app": "db"}))
    assert by_labels == ["there is no Service with tier=data"]


def test_a_service_without_endpoints_is_said() -> None:
    assert toward(ServicePeer("default", "db"), service("db", {"app": "none"})) == [
        "no workload and no EndpointSlice is behind default/db"
    ]


def test_a_service_with_endpoints_is_not_warned_of() -> None:
    found = (SliceEndpoint((ip_address("203.0.113.1"),)),)
    one_slice = EndpointSlice("default", "ledger-1", origin("EndpointSlice", "ledger-1"), "ledger", endpoints=found)
    assert toward(ServicePeer("", "db"), service("db", {"app": "db"})) == []
    assert toward(ServicePeer("", "ledger"), service("ledger", {}), slices=(one_slice,)) == []


# Ports


@pytest.mark.parametrize(
    ("name", "protocol", "warned"), [("http", TCP, False), ("http", UDP, True), ("https", TCP, True)]
)
def test_a_named_port_that_the_receiving_end_has_not_is_said(name: str, protocol: int, warned: bool) -> None:
    ports = (PortMatch(protocol, name=name),)
    into = said(rule(app("web"), (item("ingress[0]", peers(app("client")), ports),)))
    out = said(rule(app("client"), egress=(item("egress[0]", peers(app("web")), ports),)))
    assert bool(into) is bool(out) is warned
    assert all(message.endswith(f'has a port called "{name}"') for message in into + out)


def test_a_port_of_any_protocol_is_there_if_it_is_there_in_one() -> None:
    ports = tuple(PortMatch(protocol, name="http") for protocol in (TCP, UDP))
    assert said(rule(app("web"), (item("ingress[0]", None, ports),))) == []


# CIDRs


@pytest.mark.parametrize(
    ("peer", "node"),
    [
        (cidr("10.0.0.0/8"), "alpha"),
        (cidr("10.44.2.7/32"), "beta"),
        (cidr("10.44.0.0/16", "10.44.1.0/24"), "beta"),
        (cidr("fd44:1::/64"), "alpha"),
        (cidr("10.44.0.0/16", "10.44.1.0/25"), "alpha"),
    ],
)
def test_a_cidr_over_the_addresses_of_workloads_is_said(peer: CidrPeer, node: str) -> None:
    [message] = said(rule(app("web"), egress=(item("egress[0]", (peer,)),)))
    assert f"holds addresses of workloads of Node {node} (" in message


@pytest.mark.parametrize(
    "peer",
    [
        cidr("0.0.0.0/0"),
        cidr("::/0"),
        cidr("10.0.0.0/8", workloads=True),
        cidr("10.0.0.0/8", "10.44.0.0/16"),
        cidr("10.43.0.0/16"),
        cidr("10.45.0.0/16"),
        cidr("203.0.113.0/24"),
        cidr("192.0.2.0/24"),
    ],
)
def test_a_cidr_of_the_world_is_not_warned_of(peer: CidrPeer) -> None:
    assert said(rule(app("web"), egress=(item("egress[0]", (peer,)),))) == []


def test_the_address_of_a_node_is_said_to_be_an_entity() -> None:
    [message] = said(rule(app("web"), egress=(item("egress[0]", (cidr("192.0.2.2/32"),)),)))
    assert "192.0.2.2/32 is the address of Node beta" in message


# One commit after another


def test_what_was_looked_at_before_changes_nothing() -> None:
    population = Population()
    web2 = workload("web2", {"app": "wbe"})
    first = commit(rule(app("wbe"), (FROM_CLIENT,)), NARROW)
    second = replace(first, workloads={**first.workloads, web2.reference: web2})
    third = replace(second, rules=(*second.rules, rule(app("db"), egress=(item("egress[0]", (cidr("10.0.0.0/8"),)),))))
    for snapshot in (first, second, third, third, first):
        assert lint(snapshot, population) == lint(snapshot)


def test_warnings_come_in_the_order_of_files_and_lines() -> None:
    rules = [
        replace(NARROW, subject=app("x"), origin=origin("NetworkPolicy", name, line))
        for name, line in (("b", 1), ("a", 7), ("a", 3))
    ]
    found = lint(commit(*rules))
    assert [(warning.path, warning.line, warning.column) for warning in found] == [
        ("networkpolicy/a.yaml", 3, 1),
        ("networkpolicy/a.yaml", 7, 1),
        ("networkpolicy/b.yaml", 1, 1),
    ]


def test_a_node_without_cidrs_has_no_addresses_to_pass_over() -> None:
    bare = {name: replace(node, cidr4=None) for name, node in NODES.items()}
    snapshot = replace(commit(rule(app("web"), egress=(item("egress[0]", (cidr("10.0.0.0/8"),)),))), nodes=bare)
    assert lint(snapshot) == ()
