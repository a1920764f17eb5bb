"""Policies that come as values (a line of JSON) and are asked about, not enforced.

Besides documents there are rules as Cilium's agent and its tests have them: the shape of a `spec`, with selectors to be
taken as they are written, and keys in any case, because Go reads them so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reconciler.errors import Fault, ManifestError
from reconciler.model.policy import PolicyRule
from reconciler.source import cilium_policy, letter_case, metadata, network_policy, schema, stamp, unenforced
from reconciler.source.documents import MAX_DEPTH
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node, Place
from reconciler.source.stamp import Settings

RULE = "Rule"  # what a rule without a document is called, with its number: Rule/0
_CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"
_NETWORK_POLICY = "NetworkPolicy"
_POLICIES = (_NETWORK_POLICY, "CiliumNetworkPolicy", _CLUSTERWIDE)

Found = tuple[PolicyRule, ...]


def documents(values: Sequence[Any], settings: Settings, path: str, line: int) -> Found:
    """The rules of policies of all three kinds. Raises ManifestError with every fault, all of them at `line`."""

    def read(node: Node, findings: Findings) -> Found:
        kind = schema.check(node, findings)
        if kind is None:
            return ()
        if kind.name not in _POLICIES:
            findings.fault(node, f"a {kind.name} is no policy: one of {', '.join(_POLICIES)} is expected")
            return ()
        identity = metadata.identity(kind.name, node, findings)
        if kind.name == _NETWORK_POLICY:
            return network_policy.rules(node, identity, findings)
        return cilium_policy.rules(node, identity, findings, unenforced.ALL)

    return _read(values, read, settings, path, line)


def rules(values: Sequence[Any], settings: Settings, path: str, line: int) -> Found:
    """The same of rules without documents, each of the shape of a `spec`."""
    known = schema.kinds()[_CLUSTERWIDE].schema
    wrapped = [
        {"apiVersion": "cilium.io/v2", "kind": _CLUSTERWIDE, "metadata": {"name": str(number)}, "spec": value}
        for number, value in enumerate(values)
    ]

    def read(node: Node, findings: Findings) -> Found:
        node = letter_case.folded(node, known)
        if schema.check(node, findings) is None:
            return ()
        identity = Identity(RULE, "", node.read("metadata", "name"))
        return cilium_policy.rules(node, identity, findings, unenforced.ALL, as_written=True)

    return _read(wrapped, read, settings, path, line)


def _read(
    values: Iterable[Any], read: Callable[[Node, Findings], Found], settings: Settings, path: str, line: int
) -> Found:
    findings = Findings()
    found: list[PolicyRule] = []
    for value in values:
        found += read(_node(value, Place(line, 1)), findings)
    if findings.faults:
        raise ManifestError(Fault(path, *fault) for fault in dict.fromkeys(findings.faults))
    return tuple(stamp.policy(stamp.bind(rule, settings), path, "") for rule in found)


def _node(value: Any, place: Place, depth: int = 0) -> Node:
    """A value as a node, all of it at one place. Raises ManifestError where it is nested too deep."""
    if depth > MAX_DEPTH:
        raise ManifestError((Fault("", *place, f"nested deeper than {MAX_DEPTH} levels"),))
    node = Node(value, place)
    if isinstance(value, dict):
        node.parts = {key: _node(part, place, depth + 1) for key, part in value.items()}
        node.keys = dict.fromkeys(value, place)
    elif isinstance(value, list):
        node.parts = [_node(part, place, depth + 1) for part in value]
    return node
