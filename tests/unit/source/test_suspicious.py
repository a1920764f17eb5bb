"""What is valid in a document and hardly ever meant is warned of, at its place."""

from __future__ import annotations

import pytest

from reconciler.source import manifests

HEAD = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: web, namespace: shop}\n"
BLOCK = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n"


def warnings(text: str) -> list[tuple[int, int, str]]:
    found = manifests.read(text.encode())
    assert found.faults == ()
    return [tuple(warning) for warning in found.warnings]


def of_rule(rule: str) -> list[tuple[int, int, str]]:
    return warnings(f"{HEAD}spec: {{endpointSelector: {{}}, {rule}}}\n")


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("ingress: [{fromEndpoints: []}]", "fromEndpoints"),
        ("ingress: [{fromCIDR: [], fromEntities: [host]}]", "fromCIDR"),
        ('egressDeny: [{toEntities: [], toPorts: [{ports: [{port: "80"}]}]}]', "toEntities"),
    ],
)
def test_10_an_empty_list_of_peers_is_nobody_and_hardly_meant(rule: str, field: str) -> None:
    [(line, column, message)] = of_rule(rule)
    assert (line, column) == (4, f"spec: {{endpointSelector: {{}}, {rule}".index(field) + 1)
    assert message.startswith(f"{field} is empty: the entry matches nobody")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("ingress: [], egress: [{}]", "`ingress: [{}]` denies all that comes in"),
        ("egress: [], ingress: [{}]", "`egress: [{}]` denies all that goes out"),
        ("ingressDeny: [], ingress: [{}]", "denies nothing"),
    ],
)
def test_4_an_empty_section_beside_another_does_nothing(rule: str, said: str) -> None:
    [(_, _, message)] = of_rule(rule)
    assert said in message


@pytest.mark.parametrize(
    "rule",
    [
        "ingress: [{}], egress: [{}]",
        "ingress: [], ingressDeny: [{fromEntities: [host]}]",
        "ingress: [], egress: [{}], enableDefaultDeny: {ingress: true}",
        'ingress: [{fromEntities: [none]}, {toPorts: [{ports: [{port: "80"}]}]}]',
        "ingress: [{fromRequires: [], fromEntities: [host]}]",
    ],
)
def test_what_is_meant_is_not_warned_of(rule: str) -> None:
    assert of_rule(rule) == []


@pytest.mark.parametrize("excepts", ["10.0.0.0/8", "10.0.0.0/9, 10.128.0.0/9"])
def test_exceptions_that_leave_nothing_are_warned_of_in_every_kind(excepts: str) -> None:
    messages = [
        *of_rule(f"egress: [{{toCIDRSet: [{{cidr: 10.0.0.0/8, except: [{excepts}]}}]}}]"),
        *warnings(
            f"{BLOCK}spec: {{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, "
            f"except: [{excepts}]}}}}]}}]}}\n"
        ),
    ]
    assert [message for _, _, message in messages] == [
        "except leaves nothing of 10.0.0.0/8: the entry matches nobody"
    ] * 2


def test_exceptions_that_leave_something_are_none() -> None:
    assert of_rule("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/9]}]}]") == []
