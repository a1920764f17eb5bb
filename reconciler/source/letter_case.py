"""Keys in any case: Go's encoding/json reads them so, and rules for Cilium's agent are written so.

Documents are not: Kubernetes takes their keys as they are spelled.
"""

from __future__ import annotations

from typing import Any

from reconciler.source.node import Node


def folded(node: Node, known: dict[str, Any]) -> Node:
    """The node with each key as its schema, `known`, writes it; unknown keys stay. Of two that meet the later wins."""
    if isinstance(node.parts, list):
        inner: dict[str, Any] = known.get("items", {})
        return _like(node, [folded(part, inner) for part in node.parts]) if inner else node
    properties: dict[str, Any] = known.get("properties", {})
    if node.parts is None or not properties:
        return node
    names = {name.lower(): name for name in properties}
    spelled = {key: key if key in properties else names.get(key.lower(), key) for key in node.parts}
    parts = {spelled[key]: folded(part, properties.get(spelled[key], {})) for key, part in node.parts.items()}
    result = _like(node, parts)
    result.keys = {spelled[key]: place for key, place in node.keys.items()}
    return result


def _like(node: Node, parts: dict[str, Node] | list[Node]) -> Node:
    values = {key: part.value for key, part in parts.items()} if isinstance(parts, dict) else [p.value for p in parts]
    result = Node(values, node.place, node.text)
    result.parts = parts
    result.size, result.depth = node.size, node.depth
    return result
