"""A value of a manifest with its place: what checks and conversions walk, and what faults point at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A position in a file; both count from 1. (0, 0) is the file as a whole."""

    line: int
    column: int


class Node:
    """A value, where it stands and, below a mapping or a sequence, its parts as nodes.

    value   plain JSON-like value, parts included: str, int, float, bool, None, dict or list
    parts   key -> node of a mapping, nodes of a sequence, None of a scalar
    keys    key -> place of the key itself, of a mapping
    text    how a plain (unquoted) scalar was written, '' for everything else
    size    number of values in it, with aliases expanded
    depth   levels of mappings and sequences in it, itself included and aliases expanded: 0 of a scalar
    Shared between all aliases of an anchor: nobody changes a node once it is built.
    """

    __slots__ = ("depth", "keys", "parts", "place", "size", "text", "value")

    def __init__(self, value: Any, place: Place, text: str = "") -> None:
        self.value = value
        self.place = place
        self.text = text
        self.parts: dict[str, Node] | list[Node] | None = None
        self.keys: dict[str, Place] = {}
        self.size = 1
        self.depth = 0

    def get(self, *path: str) -> Node | None:
        """The node below these keys; None if one is absent or its value is null."""
        node = self
        for key in path:
            part = node.parts.get(key) if isinstance(node.parts, dict) else None
            if part is None or part.value is None:
                return None
            node = part
        return node

    def read(self, *path: str, default: Any = None) -> Any:
        """The plain value below these keys."""
        node = self.get(*path)
        return default if node is None else node.value

    def items(self, *path: str) -> list[Node]:
        """The entries of the sequence below these keys; empty if it is absent or null."""
        node = self.get(*path)
        return node.parts if node is not None and isinstance(node.parts, list) else []

    def members(self, *path: str) -> Iterator[tuple[str, Node]]:
        """Key and node of each entry of the mapping below these keys that is not null."""
        node = self.get(*path)
        if node is not None and isinstance(node.parts, dict):
            for key, part in node.parts.items():
                if part.value is not None:
                    yield key, part

    def place_of(self, *path: str) -> Place:
        """The place of the value below these keys, or of the nearest one above it that is there."""
        node = self
        for key in path:
            part = node.parts.get(key) if isinstance(node.parts, dict) else None
            if part is None:
                break
            node = part
        return node.place

    def key_place(self, key: str) -> Place:
        return self.keys.get(key, self.place)


class Finding(NamedTuple):
    """A fault or a warning before it is known in which file it is."""

    line: int
    column: int
    message: str


class Findings:
    """What the checks of one file have found so far."""

    def __init__(self) -> None:
        self.faults: list[Finding] = []
        self.warnings: list[Finding] = []

    def fault(self, at: Node | Place, message: str) -> None:
        self.faults.append(_finding(at, message))

    def warn(self, at: Node | Place, message: str) -> None:
        self.warnings.append(_finding(at, message))


def _finding(at: Node | Place, message: str) -> Finding:
    place = at.place if isinstance(at, Node) else at
    return Finding(place.line, place.column, message)
