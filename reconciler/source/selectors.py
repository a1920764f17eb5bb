"""Label selectors of manifests as requirements on identity labels."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.model.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from reconciler.model.selector import ANY_SOURCE, Operator, Requirement, Selector, label_is
from reconciler.source.metadata import key_fault, value_fault
from reconciler.source.node import Findings, Node

KUBERNETES = "k8s"
RESERVED = "reserved"
_OLD_RESERVED = "reserved."
_UNSPECIFIED = ("unspec", ANY_SOURCE)  # both mean: whatever the source
_FREE_SOURCES = ("cidr", "container", "fqdn", "cidrgroup")  # their keys and values are not ours to judge

Requirements = tuple[Requirement, ...]

IN_A_NAMESPACE = Requirement(KUBERNETES, NAMESPACE_KEY, Operator.EXISTS)


def in_namespace(namespace: str) -> Requirement:
    return label_is(KUBERNETES, NAMESPACE_KEY, namespace)


def reserved(name: str) -> Selector:
    return Selector((label_is(RESERVED, name),))


def kubernetes(node: Node, findings: Findings, prefix: str = "") -> Requirements:
    """A selector whose keys name Kubernetes labels; `prefix` stands before each key (labels of a namespace)."""
    return tuple(
        Requirement(KUBERNETES, prefix + key, operator, values)
        for key, operator, values in _terms(node, findings, sourced=False)
    )


def namespaces(node: Node, findings: Findings) -> Requirements:
    """A namespace selector: labels of the namespace, and whatever has no namespace is out."""
    return (*kubernetes(node, findings, NAMESPACE_LABELS_PREFIX), IN_A_NAMESPACE)


def cilium(node: Node, findings: Findings) -> Requirements:
    """A selector whose keys may name their source: `app`, `k8s:app`, `reserved:host`."""
    return tuple(
        Requirement(*split_key(key), operator, values) for key, operator, values in _terms(node, findings, sourced=True)
    )


def split_key(key: str) -> tuple[str, str]:
    """`k8s:app` is (k8s, app), `app` is (any, app); `reserved.host` and `$host` are older forms of `reserved:host`.

    Source: cilium/cilium pkg/labels/labels.go, parseSource.
    """
    if key.startswith("$"):
        return RESERVED, key[1:]
    source, colon, name = key.partition(":")
    if colon:
        return (ANY_SOURCE if source in _UNSPECIFIED else source), name
    if key.startswith(_OLD_RESERVED):
        return RESERVED, key.removeprefix(_OLD_RESERVED)
    return ANY_SOURCE, key


def names_namespace(requirements: Iterable[Requirement]) -> bool:
    return any(_is(requirement, NAMESPACE_KEY) for requirement in requirements)


def names_namespace_labels(requirements: Iterable[Requirement]) -> bool:
    return any(
        requirement.source in (ANY_SOURCE, KUBERNETES) and requirement.key.startswith(NAMESPACE_LABELS_PREFIX)
        for requirement in requirements
    )


def names_reserved(requirements: Iterable[Requirement], name: str = "") -> bool:
    """Whether any key has the source `reserved` (and this name)."""
    return any(requirement.source == RESERVED and (not name or requirement.key == name) for requirement in requirements)


def pins_namespace(requirement: Requirement) -> frozenset[str] | None:
    """The namespaces that a requirement confines a selector to; None if it does not speak of them so."""
    if _is(requirement, NAMESPACE_KEY) and requirement.operator is Operator.IN:
        return requirement.values
    return None


def own_cluster(cluster: str) -> Selector:
    return Selector((label_is(KUBERNETES, CLUSTER_KEY, cluster),))


def _is(requirement: Requirement, key: str) -> bool:
    return requirement.key == key and requirement.source in (ANY_SOURCE, KUBERNETES)


def _terms(node: Node, findings: Findings, *, sourced: bool) -> Iterable[tuple[str, Operator, frozenset[str]]]:
    match_labels = node.get("matchLabels")
    for key, part in match_labels.members() if match_labels else ():
        assert match_labels is not None
        if fault := _fault(key, [part.value], sourced=sourced):
            findings.fault(match_labels.key_place(key), fault)
        yield key, Operator.IN, frozenset((part.value,))
    for expression in node.items("matchExpressions"):
        operator = Operator(expression.read("operator"))
        values: list[str] = expression.read("values", default=[])
        if fault := _fault(expression.read("key"), values, sourced=sourced):
            findings.fault(expression.place_of("key"), fault)
        _check_values(expression, operator, values, findings)
        yield expression.read("key"), operator, frozenset(values)


def _check_values(expression: Node, operator: Operator, values: list[str], findings: Findings) -> None:
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            findings.fault(expression.place_of("values"), f"{operator.value} needs at least one entry in values")
    elif values:
        findings.fault(expression.place_of("values"), f"{operator.value} takes no values")


def _fault(key: str, values: Iterable[str], *, sourced: bool) -> str:
    source, name = split_key(key) if sourced else (KUBERNETES, key)
    if source in _FREE_SOURCES:
        return ""
    return key_fault(name) or next(filter(None, map(value_fault, values)), "")
