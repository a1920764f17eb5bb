"""Kubernetes' NetworkPolicy as rules: what its lists mean when they are full, empty and absent."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from reconciler.model.labels import NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from reconciler.model.policy import CidrPeer, EndpointPeer, PolicyRule, PortMatch
from reconciler.model.selector import Operator, Requirement, Selector, label_is
from reconciler.source import manifests

IN_SHOP = label_is("k8s", NAMESPACE_KEY, "shop")
IN_A_NAMESPACE = Requirement("k8s", NAMESPACE_KEY, Operator.EXISTS)


def rule(spec: str) -> PolicyRule:
    text = (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}"
    )
    found = manifests.read(text.encode())
    assert found.faults == ()
    assert isinstance(found.documents[0].content, tuple)
    return found.documents[0].content[0]


def test_the_subject_never_leaves_its_namespace() -> None:
    assert rule("{podSelector: {}}").subject == Selector((IN_SHOP,))


def test_a_selector_reads_labels_of_kubernetes_only() -> None:
    found = rule("{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: a, operator: NotIn, values: [b]}]}}")
    assert found.subject.requirements == (
        label_is("k8s", "app", "web"),
        Requirement("k8s", "a", Operator.NOT_IN, frozenset("b")),
        IN_SHOP,
    )


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("{podSelector: {}}", True, False),
        ("{podSelector: {}, egress: []}", True, False),
        ("{podSelector: {}, egress: [{}]}", True, True),
        ("{podSelector: {}, policyTypes: [Egress]}", False, True),
        ("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}", False, True),
        ("{podSelector: {}, policyTypes: []}", True, False),
        ("{podSelector: {}, policyTypes: [Ingress, Egress]}", True, True),
    ],
)
def test_policy_types_say_which_directions_are_isolated(spec: str, ingress: bool, egress: bool) -> None:
    found = rule(spec)
    assert (found.isolates_ingress, found.isolates_egress) == (ingress, egress)


def test_a_direction_that_policy_types_leave_out_has_no_entries() -> None:
    assert rule("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}").ingress == ()


@pytest.mark.parametrize("item", ["{}", "{from: []}", "{from: null}", "{ports: []}"])
def test_an_empty_or_absent_list_means_any(item: str) -> None:
    [found] = rule(f"{{podSelector: {{}}, ingress: [{item}]}}").ingress
    assert (found.field, found.peers, found.ports) == ("ingress[0]", None, None)


@pytest.mark.parametrize(
    ("peer", "requirements"),
    [
        ("{podSelector: {}}", (IN_SHOP,)),
        ("{podSelector: {matchLabels: {app: db}}}", (label_is("k8s", "app", "db"), IN_SHOP)),
        ("{namespaceSelector: {}}", (IN_A_NAMESPACE,)),
        (
            "{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: db}}}",
            (label_is("k8s", "app", "db"), label_is("k8s", NAMESPACE_LABELS_PREFIX + "team", "a"), IN_A_NAMESPACE),
        ),
    ],
)
def test_a_peer_by_labels(peer: str, requirements: tuple[Requirement, ...]) -> None:
    [found] = rule(f"{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}").ingress
    assert found.peers == (EndpointPeer(Selector(requirements)),)


def test_an_ip_block_with_host_bits_is_cut_with_a_warning() -> None:
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n"
        "spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}}]}]}"
    )
    found = manifests.read(text.encode())
    assert isinstance(found.documents[0].content, tuple)
    [peer] = found.documents[0].content[0].egress[0].peers or ()
    assert peer == CidrPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),), matches_workloads=True)
    assert "it means 10.0.0.0/8" in found.warnings[0].message


@pytest.mark.parametrize(
    ("port", "match"),
    [
        ("{port: 80}", PortMatch(6, 80, 80)),
        ("{protocol: UDP}", PortMatch(17)),
        ("{port: 80, endPort: 90, protocol: SCTP}", PortMatch(132, 80, 90)),
        ("{port: http}", PortMatch(6, name="http")),
    ],
)
def test_a_port(port: str, match: PortMatch) -> None:
    [found] = rule(f"{{podSelector: {{}}, ingress: [{{ports: [{port}]}}]}}").ingress
    assert found.ports == (match,)


def test_an_entry_knows_its_own_line() -> None:
    found = rule("\n  podSelector: {}\n  ingress:\n    - {}\n    - from: []\n")
    assert [item.origin.line for item in found.ingress] == [7, 8]
    assert (found.origin.line, found.origin.name) == (1, "shop/web")


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ('"80"', 'port "80" is a string, and a name has a letter: write a number without quotes'),
        ("0", "port 0 is below 1"),
    ],
)
def test_a_port_in_quotes_is_told_apart_from_one_that_is_out_of_range(port: str, said: str) -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n"
    found = manifests.read(f"{head}spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}\n".encode())
    assert [one.message for one in found.faults] == [said]
