"""Manifests and rules in bulk: each line is a JSON object with one of them, and gets an answer of its own.

    {"id": ..., "doc": a manifest, or its text}      {"id": ..., "rule": a Cilium rule, or a list of them}

A rule is what stands under `spec` in a CiliumClusterwideNetworkPolicy; its keys may be in any case, as Cilium's agent
takes them. Nothing here looks at a second document, and what is valid and not enforced yet is valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.errors import Fault
from reconciler.source import documents, letter_case, manifests, schema
from reconciler.source.node import Finding, Node, Place

RULE_KIND = "CiliumClusterwideNetworkPolicy"


@dataclass(frozen=True, slots=True)
class Answer:
    """`id` is the line's own, whatever it is. The message of a fault begins with the path of its field."""

    id: Any
    faults: tuple[Fault, ...]


def answer(line: bytes, path: str, number: int) -> Answer:
    """What is wrong in line `number` of `path`, at its place there.

    What comes as text has places in that text, and for a path what the line says in `file`, or its `id`.
    """
    if not line.strip():
        return Answer(None, (Fault(path, number, 1, "the line is empty"),))
    try:
        nodes = documents.parse(line, is_json=True)
    except documents.ParseError as e:
        return Answer(None, (Fault(path, number, e.finding.column, e.finding.message),))
    if len(nodes) != 1 or not isinstance(nodes[0].value, dict):
        return Answer(None, (Fault(path, number, 1, "a JSON object with id and doc or rule is expected"),))
    whole = nodes[0]
    identity, document, rule = whole.read("id"), whole.get("doc"), whole.get("rule")
    if (document is None) == (rule is None):
        return Answer(identity, (Fault(path, number, 1, "one of doc and rule is needed, and only one"),))
    if document is not None and isinstance(document.value, str):
        name = str(whole.read("file", default=identity) or path)
        return Answer(identity, tuple(Fault(name, *finding) for finding in _of_text(document.value)))
    found = _of_rules(rule) if rule is not None else manifests.check(document or whole).faults
    faults = (Fault(path, number, one.column, _with_field(whole, one).message) for one in found)
    return Answer(identity, tuple(faults))


def _of_text(text: str) -> tuple[Finding, ...]:
    try:
        nodes = documents.parse(text.encode())
    except documents.ParseError as e:
        return (e.finding,)
    if not nodes:
        return (Finding(1, 1, "there is no manifest in it"),)
    return tuple(_with_field(node, finding) for node in nodes for finding in manifests.check(node).faults)


def _of_rules(node: Node) -> tuple[Finding, ...]:
    """One rule, or as many as a list has."""
    rules = node.parts if isinstance(node.parts, list) else [node]
    if not rules:
        return (Finding(*node.place, "the list has no rule"),)
    return tuple(finding for rule in rules for finding in manifests.check(_wrapped(rule)).faults)


def _wrapped(rule: Node) -> Node:
    """The rule as the `spec` of a document."""
    kind = schema.kinds()[RULE_KIND]
    spec = letter_case.folded(rule, kind.schema["properties"]["spec"])
    head = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": "rule"}}
    return _mapping({key: _plain(value, rule) for key, value in head.items()} | {"spec": spec}, rule)


def _plain(value: Any, at: Node) -> Node:
    if isinstance(value, dict):
        return _mapping({key: _plain(part, at) for key, part in value.items()}, at)
    return Node(value, at.place)


def _mapping(parts: dict[str, Node], at: Node) -> Node:
    result = Node({key: part.value for key, part in parts.items()}, at.place)
    result.parts = parts
    result.keys = dict.fromkeys(parts, at.place)
    return result


def _with_field(node: Node, finding: Finding) -> Finding:
    field = next((path for path, place in _fields(node, "") if place == finding[:2]), "")
    return finding._replace(message=f"{field}: {finding.message}") if field else finding


def _fields(node: Node, path: str) -> Iterator[tuple[str, Place]]:
    """Path and place of every value and of every key below, outer ones first."""
    yield path, node.place
    if isinstance(node.parts, list):
        for index, part in enumerate(node.parts):
            yield from _fields(part, f"{path}[{index}]")
    elif node.parts is not None:
        for key, part in node.parts.items():
            inner = f"{path}.{key}" if path else key
            yield inner, node.key_place(key)
            yield from _fields(part, inner)
