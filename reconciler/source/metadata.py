"""Names, namespaces and labels: what Kubernetes allows in them.

Source: k8s.io/apimachinery pkg/util/validation/validation.go.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from reconciler.model.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from reconciler.source.node import Findings, Node

DEFAULT_NAMESPACE = "default"
CLUSTER_WIDE = ("Cluster", "Node", "Namespace", "Prefilter", "CiliumClusterwideNetworkPolicy")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_SHORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_LONGEST_NAME = 253
_LONGEST_LABEL = 63
_OWN_KEYS = (NAMESPACE_KEY, CLUSTER_KEY)


class Identity(NamedTuple):
    """What a document is called; namespace is '' for kinds that live in none."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


def identity(kind: str, document: Node, findings: Findings) -> Identity:
    """Kind, namespace and name of a document that its schema accepts."""
    name, namespace = document.read("metadata", "name"), document.read("metadata", "namespace")
    short = kind in ("Namespace", "Node", "Workload", "Cluster", "Service")
    check_name(document.get("metadata", "name"), findings, short=short)
    if kind in CLUSTER_WIDE:
        if namespace:
            findings.fault(document.place_of("metadata", "namespace"), f"a {kind} lives in no namespace")
        return Identity(kind, "", name)
    if namespace:
        check_name(document.get("metadata", "namespace"), findings, short=True)
    return Identity(kind, sys.intern(namespace or DEFAULT_NAMESPACE), name)  # which many documents share


def check_name(node: Node | None, findings: Findings, *, short: bool) -> None:
    """A name of a document (RFC 1123: a label if short, else a subdomain)."""
    if node is None:
        return
    pattern, longest = (_SHORT_NAME, _LONGEST_LABEL) if short else (_NAME, _LONGEST_NAME)
    if not pattern.match(node.value):
        dots = "" if short else " and ."
        findings.fault(node, f'name "{node.value}" may hold lower case letters, digits, -{dots}, no other characters')
    elif len(node.value) > longest:
        findings.fault(node, f"name has {len(node.value)} characters, at most {longest}")


def labels(document: Node, findings: Findings) -> dict[str, str]:
    """The labels of a document, checked."""
    found: dict[str, str] = {}
    metadata = document.get("metadata")
    node = metadata.get("labels") if metadata else None
    for key, part in node.members() if node else ():
        assert node is not None
        if fault := key_fault(key) or value_fault(part.value):
            findings.fault(node.key_place(key), fault)
        found[key] = part.value
    return found


def check_own_labels(document: Node, findings: Findings) -> None:
    """Workloads must not claim the labels that say where they belong: namespace and cluster."""
    node = document.get("metadata", "labels")
    for key, _ in node.members() if node else ():
        if key in _OWN_KEYS or key.startswith(NAMESPACE_LABELS_PREFIX):
            assert node is not None
            findings.fault(node.key_place(key), f"label {key} is given by Plumbline and cannot be set")


def key_fault(key: str) -> str:
    """What is wrong with a label key, '' if nothing."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (_NAME.match(prefix) and len(prefix) <= _LONGEST_NAME):
        return f'label key "{key}": what stands before the / must be a DNS name'
    if not _LABEL_NAME.match(name) or len(name) > _LONGEST_LABEL:
        return (
            f'label key "{key}" may hold letters, digits, -, _ and ., must begin and end with a letter or digit, '
            f"at most {_LONGEST_LABEL} characters"
        )
    return ""


def value_fault(value: str) -> str:
    """What is wrong with a label value, '' if nothing."""
    if _LABEL_VALUE.match(value) and len(value) <= _LONGEST_LABEL:
        return ""
    return (
        f'label value "{value}" may hold letters, digits, -, _ and ., must begin and end with a letter or digit, '
        f"at most {_LONGEST_LABEL} characters"
    )
