"""Cilium's policies as rules; numbers in names are those of the semantics that the project keeps to."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from reconciler.model.labels import NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from reconciler.model.policy import CidrPeer, EndpointPeer, PolicyRule, PortMatch, RuleItem
from reconciler.model.selector import Operator, Requirement, Selector, label_is
from reconciler.source import manifests
from reconciler.source.peers import OWN_CLUSTER
from reconciler.source.stamp import Settings, bind

IN_SHOP = label_is("k8s", NAMESPACE_KEY, "shop")
IN_A_NAMESPACE = Requirement("k8s", NAMESPACE_KEY, Operator.EXISTS)
HOST = EndpointPeer(Selector((label_is("reserved", "host"),)))


def rules(spec: str, *, cluster_wide: bool = False) -> tuple[PolicyRule, ...]:
    kind = "CiliumClusterwideNetworkPolicy" if cluster_wide else "CiliumNetworkPolicy"
    metadata = "{name: web}" if cluster_wide else "{name: web, namespace: shop}"
    found = manifests.read(f"apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {metadata}\n{spec}".encode())
    assert found.faults == ()
    assert isinstance(found.documents[0].content, tuple)
    return found.documents[0].content


def rule(spec: str, *, cluster_wide: bool = False) -> PolicyRule:
    [found] = rules(f"spec: {{endpointSelector: {{}}, {spec}}}", cluster_wide=cluster_wide)
    return found


def faults(spec: str) -> list[str]:
    head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: web, namespace: shop}\n"
    return [one.message for one in manifests.read(f"{head}spec: {{endpointSelector: {{}}, {spec}}}".encode()).faults]


def ingress(item: str, *, cluster_wide: bool = False) -> RuleItem:
    return rule(f"ingress: [{item}]", cluster_wide=cluster_wide).ingress[0]


def selector(text: str, *, cluster_wide: bool = False) -> tuple[Requirement, ...]:
    [peer] = ingress(f"{{fromEndpoints: [{text}]}}", cluster_wide=cluster_wide).peers or ()
    assert isinstance(peer, EndpointPeer)
    return peer.selector.requirements


# A: when a policy is enforced


@pytest.mark.parametrize(
    ("sections", "isolates"),
    [
        ("ingress: [{}]", (True, False)),
        ("egressDeny: [{toEntities: [host]}]", (False, True)),
        ("ingress: [{}], enableDefaultDeny: {ingress: false}", (False, False)),
        ("ingress: [{}], enableDefaultDeny: {egress: true}", (True, True)),
        ("ingress: [{}], egress: []", (True, False)),
    ],
)
def test_2_3_a_direction_with_an_entry_is_isolated_unless_told_otherwise(
    sections: str, isolates: tuple[bool, bool]
) -> None:
    found = rule(sections)
    assert (found.isolates_ingress, found.isolates_egress) == isolates


def test_4_one_empty_entry_allows_nobody() -> None:
    found = ingress("{}")
    assert (found.peers, found.ports) == ((), None)


# B: peers


def test_9_ports_without_peers_mean_any_peer() -> None:
    assert ingress('{toPorts: [{ports: [{port: "80"}]}]}').peers is None


@pytest.mark.parametrize("item", ["{fromEndpoints: []}", '{fromEndpoints: [], toPorts: [{ports: [{port: "80"}]}]}'])
def test_10_a_list_of_peers_that_is_there_and_empty_is_nobody(item: str) -> None:
    assert ingress(item).peers == ()


def test_10_an_empty_list_beside_a_full_one_is_nobody_too() -> None:
    assert ingress("{fromEndpoints: [], fromEntities: [host]}").peers == ()


def test_10_null_is_absent() -> None:
    assert ingress('{fromEndpoints: null, toPorts: [{ports: [{port: "80"}]}]}').peers is None


def test_11_an_empty_selector_is_the_namespace_or_all_workloads() -> None:
    assert selector("{}") == (IN_SHOP,)
    assert selector("{}", cluster_wide=True) == (IN_A_NAMESPACE,)


@pytest.mark.parametrize(
    "key", [NAMESPACE_KEY, f"k8s:{NAMESPACE_KEY}", f"{NAMESPACE_LABELS_PREFIX}team", "reserved:host", "reserved.host"]
)
def test_12_a_selector_that_names_a_namespace_is_left_alone(key: str) -> None:
    assert len(selector(f"{{matchLabels: {{{key!r}: x}}}}")) == 1


def test_12_labels_of_a_namespace_still_mean_workloads_in_a_clusterwide_policy() -> None:
    found = selector(f"{{matchLabels: {{{NAMESPACE_LABELS_PREFIX}team: x}}}}", cluster_wide=True)
    assert IN_A_NAMESPACE in found


def test_13_the_subject_is_in_the_namespace_of_its_policy() -> None:
    assert rule("ingress: [{}]").subject == Selector((IN_SHOP,))
    assert rule("ingress: [{}]", cluster_wide=True).subject == Selector()


@pytest.mark.parametrize(
    ("key", "source"),
    [("foo", "any"), ("any:foo", "any"), ("unspec:foo", "any"), ("k8s:foo", "k8s"), ("$foo", "reserved")],
)
def test_14_a_key_may_name_its_source(key: str, source: str) -> None:
    assert selector(f"{{matchLabels: {{{key!r}: ''}}}}")[0] == label_is(source, "foo")


def test_15_a_negative_expression_stays_in_the_namespace() -> None:
    found = selector("{matchExpressions: [{key: app, operator: DoesNotExist}]}")
    assert found == (Requirement("any", "app", Operator.DOES_NOT_EXIST), IN_SHOP)


@pytest.mark.parametrize(
    ("entity", "names"),
    [
        ("world", ["world", "world-ipv4", "world-ipv6"]),
        ("world-ipv6", ["world-ipv6"]),
        ("kube-apiserver", ["kube-apiserver"]),
        ("none", []),
    ],
)
def test_16_an_entity_is_a_reserved_label(entity: str, names: list[str]) -> None:
    expected = tuple(EndpointPeer(Selector((label_is("reserved", name),))) for name in names)
    assert ingress(f"{{fromEntities: [{entity}]}}").peers == expected


def test_16_all_is_the_selector_without_requirements() -> None:
    assert ingress("{fromEntities: [all]}").peers == (EndpointPeer(Selector()),)


def test_16_cluster_is_its_own_workloads_by_name_and_what_is_reserved_in_it() -> None:
    found = bind(rule("ingress: [{fromEntities: [cluster]}]"), Settings("berlin", True)).ingress[0].peers or ()
    own = EndpointPeer(Selector((label_is("k8s", "io.cilium.k8s.policy.cluster", "berlin"),)))
    assert HOST in found
    assert found[-1] == own
    assert OWN_CLUSTER not in found


def test_17_requirements_are_kept_apart_and_allow_nothing() -> None:
    found = rule("ingress: [{fromRequires: [{matchLabels: {team: a}}]}]")
    assert found.ingress[0].peers == ()
    assert found.requires_ingress == (Selector((label_is("any", "team", "a"), IN_SHOP)),)


def test_19_a_bare_address_is_its_full_length_cidr() -> None:
    item = ingress("{fromCIDR: [10.0.0.1, '2001:db8::1/48']}")
    assert item.peers == (CidrPeer(ip_network("10.0.0.1/32")), CidrPeer(ip_network("2001:db8::/48")))


def test_19_exceptions_belong_to_their_entry() -> None:
    item = ingress("{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.0.0/16}]}")
    assert item.peers == (
        CidrPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),)),
        CidrPeer(ip_network("10.1.0.0/16")),
    )


# C: ports


@pytest.mark.parametrize(
    ("port", "matches"),
    [
        ('{port: "80", protocol: tcp}', [PortMatch(6, 80, 80)]),
        ('{port: "80"}', [PortMatch(6, 80, 80), PortMatch(17, 80, 80), PortMatch(132, 80, 80)]),
        ('{port: "0", protocol: UDP}', [PortMatch(17)]),
        ("{protocol: ANY}", [PortMatch(6), PortMatch(17), PortMatch(132)]),
        ('{port: "1", endPort: 9, protocol: TCP}', [PortMatch(6, 1, 9)]),
        ("{port: HTTP, protocol: TCP}", [PortMatch(6, name="http")]),
        ("{protocol: ICMP}", [PortMatch(1, 0, 255)]),
    ],
)
def test_23_24_a_port(port: str, matches: list[PortMatch]) -> None:
    assert ingress(f"{{toPorts: [{{ports: [{port}]}}]}}").ports == tuple(matches)


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ('{port: "0", endPort: 10, protocol: TCP}', "port 0 with endPort 10: a range begins at a port from 1 to 65535"),
        ('{port: "0", endPort: 65535}', "port 0 with endPort 65535: "),
        ("{endPort: 10, protocol: TCP}", "endPort 10 without port: "),
        ('{port: "", protocol: TCP}', 'port is empty; every port of the protocol is `port: "0"`, or none'),
        ('{port: "70000", endPort: 10}', "port 70000 is above 65535"),
    ],
)
def test_23_what_could_be_taken_for_every_port_is_refused_where_it_says_something_else(port: str, said: str) -> None:
    [fault] = faults(f"ingress: [{{toPorts: [{{ports: [{port}]}}]}}]")
    assert said in fault


def test_23_the_range_that_is_none_goes_with_every_port() -> None:
    assert ingress('{toPorts: [{ports: [{port: "0", endPort: 0, protocol: TCP}]}]}').ports == (PortMatch(6),)


def test_25_icmp_types_stand_in_as_ports() -> None:
    item = ingress("{icmps: [{fields: [{type: 0}, {type: EchoRequest}, {family: IPv6, type: EchoRequest}]}]}")
    assert item.ports == (PortMatch(1, 0, 0), PortMatch(1, 8, 8), PortMatch(58, 128, 128))
    assert item.peers is None


def test_ports_that_name_no_port_match_nothing() -> None:
    item = ingress("{fromEntities: [host], toPorts: [{}]}")
    assert (item.peers, item.ports) == ((), ())


# D: deny, names, places


def test_27_a_deny_entry_says_so() -> None:
    found = rule("ingressDeny: [{fromEntities: [host]}], ingress: [{fromEntities: [host]}]").ingress
    assert [(item.field, item.deny) for item in found] == [("ingress[0]", False), ("ingressDeny[0]", True)]


def test_entries_of_several_specs_are_told_apart() -> None:
    found = rules("specs:\n  - {endpointSelector: {}, ingress: [{}]}\n  - {endpointSelector: {}, egress: [{}]}\n")
    assert [item.field for one in found for item in one.ingress + one.egress] == [
        "specs[0].ingress[0]",
        "specs[1].egress[0]",
    ]
    assert [one.origin.line for one in found] == [5, 6]
