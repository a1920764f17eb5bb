"""A file's bytes as documents: values with their places, and nothing that could surprise.

The C parser of PyYAML hands over events; values are built from them here, without recursion, so that duplicate keys,
aliases, depth and size are all seen before anything is spent on them.
"""

from __future__ import annotations

import json
import re
import sys

import yaml
from yaml._yaml import CParser

from reconciler.source.node import Finding, Node, Place
from reconciler.source.scalars import ScalarError, kind_of, resolve

MAX_BYTES = 1 << 20  # what etcd, and with it Kubernetes, would take as one object is 1.5 MiB
MAX_DEPTH = 64  # the deepest field of the public formats stands at 12
MAX_VALUES = 100_000  # in a file, aliases expanded
MAX_EXPANSION = 10_000  # values that aliases stand for, in a file

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}
_MERGE_KEY = "<<"
_PAIR = re.compile(r"\\(?:u(?P<high>d[89ab]..)\\u(?P<low>d[c-f]..)|.)", re.IGNORECASE)  # or any one escape


class ParseError(Exception):
    """A file that holds no documents; `finding` says where and why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(place.line, place.column, message)


def parse(data: bytes, *, is_json: bool = False) -> list[Node]:
    """The documents of a file; empty ones are left out. Raises ParseError."""
    if len(data) > MAX_BYTES:
        raise too_big(len(data))
    text = _decode(data)
    if is_json:
        text = _check_json(text)
    try:
        return [document for document in _Builder(CParser(text)).documents() if document.value is not None]
    except yaml.MarkedYAMLError as e:
        raise _syntax_error(e) from e
    except yaml.YAMLError as e:  # a ReaderError: a character that YAML does not allow
        position = getattr(e, "position", 0)
        raise ParseError(_place_at(text, position), f"a character that YAML does not allow: {_first_line(e)}") from e


def too_big(size: int) -> ParseError:
    return ParseError(Place(0, 0), f"the file has {size} bytes, the limit is {MAX_BYTES}: split it")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        place = _place_at(data[: e.start].decode("utf-8", "replace"), e.start)
        raise ParseError(place, f"not UTF-8 (byte 0x{data[e.start]:02x}): save the file as UTF-8") from e


def _check_json(text: str) -> str:
    """The same text as YAML takes it: a tab is blank space in JSON and an error in YAML."""
    try:
        json.loads(text, parse_int=str, parse_float=str)  # numbers are judged where their place is known
    except json.JSONDecodeError as e:
        raise ParseError(Place(e.lineno, e.colno), f"JSON syntax: {e.msg}") from e
    except RecursionError as e:
        raise ParseError(Place(0, 0), f"nested deeper than {MAX_DEPTH} levels") from e
    return _PAIR.sub(_joined, text.replace("\t", " "))


def _joined(match: re.Match[str]) -> str:
    """An escaped character as YAML escapes it; it has no surrogate pairs (RFC 8259 section 7, YAML 1.1 section 5.6)."""
    high, low = match["high"], match["low"]
    if not high:
        return match[0]
    return f"\\U{0x10000 + (int(high, 16) - 0xD800 << 10) + int(low, 16) - 0xDC00:08x}"


def _place_at(text: str, position: int) -> Place:
    head = text[:position]
    return Place(head.count("\n") + 1, len(head) - head.rfind("\n"))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _syntax_error(error: yaml.MarkedYAMLError) -> ParseError:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(0, 0)
    if error.problem == "exceeded maximum nesting depth":  # libyaml's own limit, of its versions since PyYAML 6.0.4
        return ParseError(place, f"nested deeper than {MAX_DEPTH} levels")
    message = f"YAML syntax: {error.problem or error.context}"
    if error.problem and error.context:
        message += f", {error.context}"
        if error.context_mark:
            message += f" that begins at line {error.context_mark.line + 1}"
    if error.problem == "found character that cannot start any token":
        message += " (tabs do not indent, and @ ` % need quotes)"
    return ParseError(place, message)


class _Open:
    """A mapping or a sequence whose end has not been seen."""

    __slots__ = ("anchor", "key", "merged", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        self.merged: list[Node] = []


class _Builder:
    """Events in, documents out. Owns the parser."""

    def __init__(self, parser: CParser) -> None:
        self._parser = parser
        self._anchors: dict[str, Node | None] = {}  # None: still open
        self._stack: list[_Open] = []
        self._documents: list[Node] = []
        self._values = 0
        self._expanded = 0

    def documents(self) -> list[Node]:
        try:
            while (event := self._parser.get_event()) is not None:
                self._take(event)
        finally:
            self._parser.dispose()
        return self._documents

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add(_scalar(event), event.anchor)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open(event, [])
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()

    def _open(self, event: yaml.CollectionStartEvent, value: dict[str, object] | list[object]) -> None:
        place = _place(event)
        if len(self._stack) >= MAX_DEPTH:
            raise ParseError(place, f"nested deeper than {MAX_DEPTH} levels")
        expected = _TAG + ("map" if isinstance(value, dict) else "seq")
        if event.tag not in (None, "!", expected):
            raise ParseError(place, f"the tag {_tag_name(event.tag)} is not allowed in a manifest")
        node = Node(value, place)
        node.parts = {} if isinstance(value, dict) else []
        node.depth = 1
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(node, event.anchor))

    def _close(self) -> None:
        frame = self._stack.pop()
        for source in frame.merged:
            _merge(source, frame.node)
        self._add(frame.node, frame.anchor)

    def _alias(self, event: yaml.AliasEvent) -> None:
        place, name = _place(event), event.anchor
        if name not in self._anchors:
            raise ParseError(place, f"the alias *{name} has no anchor &{name} before it in this document")
        node = self._anchors[name]
        if node is None:
            raise ParseError(place, f"the alias *{name} stands inside its own anchor")
        if len(self._stack) + node.depth > MAX_DEPTH:
            raise ParseError(place, f"nested deeper than {MAX_DEPTH} levels by the alias *{name}")
        self._expanded += node.size
        if self._expanded > MAX_EXPANSION:
            raise ParseError(place, f"aliases stand for more than {MAX_EXPANSION} values: write them out, or fewer")
        self._add(node, None)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        self._values += 1
        if self._values > MAX_VALUES:
            raise ParseError(node.place, f"the file holds more than {MAX_VALUES} values: split it")
        if not self._stack:
            self._documents.append(node)
            return
        frame = self._stack[-1]
        if isinstance(frame.node.parts, list):
            frame.node.parts.append(node)
            frame.node.value.append(node.value)
            _grow(frame.node, node)
        elif frame.key is None:
            frame.key = _checked_key(node)
        else:
            key, frame.key = frame.key, None
            _put(frame, key, node)


def _checked_key(node: Node) -> Node:
    if isinstance(node.value, str):
        return node
    if node.parts is not None:
        raise ParseError(node.place, f"a key must be a string, not {kind_of(node.value)}")
    raise ParseError(
        node.place, f'the key {node.text or "null"} reads as {kind_of(node.value)}: quote it: "{node.text}"'
    )


def _put(frame: _Open, key: Node, node: Node) -> None:
    mapping, name = frame.node, sys.intern(key.value)  # what is called so is kept of many documents
    if name == _MERGE_KEY and key.text == _MERGE_KEY:
        frame.merged += _merge_sources(node)
        return
    if name in mapping.keys:
        first = mapping.keys[name]
        raise ParseError(key.place, f'duplicate key "{name}": it is already at line {first.line}')
    assert isinstance(mapping.parts, dict)
    mapping.parts[name] = node
    mapping.value[name] = node.value
    mapping.keys[name] = key.place
    _grow(mapping, node)


def _grow(into: Node, part: Node) -> None:
    into.size += part.size
    into.depth = max(into.depth, part.depth + 1)


def _merge_sources(node: Node) -> list[Node]:
    sources = node.parts if isinstance(node.parts, list) else [node]
    for source in sources:
        if not isinstance(source.parts, dict):
            raise ParseError(source.place, f"<< merges mappings, and this is {kind_of(source.value)}")
    return sources


def _merge(source: Node, into: Node) -> None:
    """Add what is not there yet: explicit keys win, then earlier sources (yaml.org/type/merge.html)."""
    assert isinstance(source.parts, dict)
    assert isinstance(into.parts, dict)
    for key, part in source.parts.items():
        if key not in into.parts:
            into.parts[key] = part
            into.value[key] = part.value
            into.keys[key] = source.keys[key]
            _grow(into, part)


def _scalar(event: yaml.ScalarEvent) -> Node:
    place, text, tag = _place(event), event.value, event.tag
    try:
        if tag is None:
            plain = event.implicit[0]
            return Node(resolve(text), place, text) if plain else Node(text, place)
        if tag in ("!", _TAG + "str"):
            return Node(text, place)
        value = resolve(text)
    except ScalarError as e:
        raise ParseError(place, str(e)) from e
    wanted = _SCALAR_TAGS.get(tag.removeprefix(_TAG))
    if wanted is None:
        raise ParseError(place, f"the tag {_tag_name(tag)} is not allowed in a manifest")
    if type(value) not in wanted:
        raise ParseError(place, f'"{text}" is not what its tag {_tag_name(tag)} says')
    return Node(value, place, text)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    assert mark is not None  # libyaml marks every event
    return Place(mark.line + 1, mark.column + 1)


def _tag_name(tag: str) -> str:
    return tag.replace(_TAG, "!!", 1) if tag.startswith(_TAG) else tag
