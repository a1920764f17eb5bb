"""Which labels make identities."""

from __future__ import annotations

from reconciler.model.labels import IdentityLabels, workload_labels

OWN = {"app": "web", "build": "17", "app-version": "2"}
AROUND = {"team": "a"}
ALWAYS = {"io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster"}


def keys(which: IdentityLabels) -> set[str]:
    return {label.key for label in workload_labels("shop", OWN, AROUND, "demo", which)}


def test_without_a_choice_all_labels_do() -> None:
    assert keys(IdentityLabels()) == {*OWN, "io.cilium.k8s.namespace.labels.team", *ALWAYS}


def test_of_those_that_are_included_the_excluded_do_not() -> None:
    assert keys(IdentityLabels(("app",), ("app-version",))) == {"app", *ALWAYS}


def test_labels_of_namespaces_are_meant_by_their_whole_key() -> None:
    assert keys(IdentityLabels((), ("io.cilium.k8s.namespace.labels.",))) == {*OWN, *ALWAYS}


def test_workloads_that_differ_in_other_labels_only_are_one_identity() -> None:
    which = IdentityLabels(excluded=("build",))
    one, other = ({**OWN, "build": number} for number in ("17", "18"))
    assert workload_labels("shop", one, {}, "demo", which) == workload_labels("shop", other, {}, "demo", which)
