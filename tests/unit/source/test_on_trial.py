"""Audit mode is an annotation of any policy."""

from __future__ import annotations

import pytest

from reconciler.model.policy import PolicyRule
from reconciler.source import manifests

NETWORK_POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {%s}\nspec: {podSelector: {}}"
CILIUM_POLICY = (
    "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {%s}\n"
    "specs: [{endpointSelector: {}, ingress: [{}]}, {endpointSelector: {}, egress: [{}]}]"
)

policies = pytest.mark.parametrize("policy", [NETWORK_POLICY, CILIUM_POLICY], ids=["kubernetes", "cilium"])


def _rules(policy: str, annotations: str) -> tuple[PolicyRule, ...]:
    found = manifests.read((policy % f"name: web, namespace: shop{annotations}").encode())
    assert found.faults == ()
    assert isinstance(found.documents[0].content, tuple)
    return found.documents[0].content


@policies
@pytest.mark.parametrize(
    ("annotations", "audit"),
    [
        ("", False),
        (', annotations: {other: "true"}', False),
        (', annotations: {plumbline/audit: "true"}', True),
        (', annotations: {plumbline/audit: "false"}', False),
    ],
)
def test_a_policy_is_on_trial_if_it_says_so(policy: str, annotations: str, audit: bool) -> None:
    assert all(rule.audit is audit for rule in _rules(policy, annotations))


@policies
def test_any_other_value_is_refused_with_its_place(policy: str) -> None:
    text = policy % 'name: web, namespace: shop, annotations: {plumbline/audit: "yes"}'
    (fault,) = manifests.read(text.encode()).faults
    assert fault.message == 'plumbline/audit is "yes"; allowed are "true" and "false"'
