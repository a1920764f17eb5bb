"""What a schema found wrong, in words for whoever wrote the manifest.

jsonschema speaks of instances and keywords; a fault names the field, what it holds and what it may hold.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from typing import Any

from reconciler.source.node import Findings, Node, Place
from reconciler.source.scalars import kind_of

_LONGEST_QUOTE = 60  # characters of a value that a message repeats
_SHOWN = 10  # names that are known


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or the first of what is known if nothing is near."""
    names = list(known)
    folded = {name.lower(): name for name in names}
    match = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    if match:
        return f'did you mean "{folded[match[0]]}"?'
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"known here: {', '.join(names[:_SHOWN])}{more}" if names else "nothing is known here"


def quoted(value: Any) -> str:
    """A value as a message shows it, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."


def report(error: Any, document: Node, findings: Findings) -> None:
    """Add the faults that a jsonschema ValidationError stands for."""
    if error.context:  # anyOf, oneOf: what the branch says that came nearest
        branches: dict[Any, list[Any]] = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        for inner in min(branches.values(), key=_distance):
            report(inner, document, findings)
        return
    node = _find(document, error.absolute_path)
    field = _field(error.absolute_path)
    phrase = _PHRASES.get(error.validator, _otherwise)
    for place, message in phrase(error, node, field):
        findings.fault(place, message)


def _distance(errors: list[Any]) -> tuple[int, int]:
    """Deeper errors mean that more of the branch did match."""
    return -max(len(error.absolute_path) for error in errors), len(errors)


def _find(node: Node, path: Iterable[str | int]) -> Node:
    for step in path:
        parts: Any = node.parts
        node = parts[step]
    return node


def _field(path: Iterable[str | int]) -> str:
    """The nearest name: `port`, `toPorts[0]`; the document itself has none."""
    name = ""
    for step in path:
        name = f"{name}[{step}]" if isinstance(step, int) else step
    return name or "the manifest"


Phrased = Iterable[tuple[Place, str]]


def _unknown(error: Any, node: Node, field: str) -> Phrased:
    known = error.schema["properties"]
    for key in error.instance:
        if key not in known:
            yield node.key_place(key), f'unknown field "{key}"; {nearest(key, known)}'


def _type(error: Any, node: Node, field: str) -> Phrased:
    wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    names = {"object": "a mapping", "array": "a list", "integer": "a whole number", "number": "a number"}
    expected = " or ".join(names.get(name, f"a {name}") for name in wanted)
    message = f"{field} must be {expected}, not {_held(error.instance, node)}"
    if "string" in wanted and node.text and error.instance is not None:
        message += f': quote it: "{node.text}"'
    yield node.place, message


def _held(value: Any, node: Node) -> str:
    if value is None or isinstance(value, dict | list):
        return kind_of(value)
    return f"{kind_of(value)} ({node.text or quoted(value)})"


def _required(error: Any, node: Node, field: str) -> Phrased:
    missing = next(name for name in error.validator_value if repr(name) in error.message)
    yield node.place, f"{field} has no {missing}"


def _enum(error: Any, node: Node, field: str) -> Phrased:
    allowed = [str(value) for value in error.validator_value if value != "" and value is not False]
    message = f"{field} {quoted(error.instance)} is not one of {', '.join(allowed)}"
    if isinstance(error.instance, str) and (near := difflib.get_close_matches(error.instance, allowed, n=1)):
        message += f'; did you mean "{near[0]}"?'
    yield node.place, message


def _bound(words: str) -> Callable[[Any, Node, str], Phrased]:
    def phrase(error: Any, node: Node, field: str) -> Phrased:
        yield node.place, f"{field} {quoted(error.instance)} is {words} {error.validator_value}"

    return phrase


def _length(words: str, unit: str) -> Callable[[Any, Node, str], Phrased]:
    def phrase(error: Any, node: Node, field: str) -> Phrased:
        if error.instance in ("", []):
            yield node.place, f"{field} is empty"
            return
        has = len(error.instance)
        yield node.place, f"{field} has {has} {unit}, {words} {error.validator_value}"

    return phrase


def _otherwise(error: Any, node: Node, field: str) -> Phrased:
    yield node.place, f"{field}: {error.message}"


_PHRASES: dict[str, Callable[[Any, Node, str], Phrased]] = {
    "additionalProperties": _unknown,
    "type": _type,
    "required": _required,
    "enum": _enum,
    "const": lambda error, node, field: [(node.place, f"{field} must be {quoted(error.validator_value)}")],
    "minimum": _bound("below"),
    "maximum": _bound("above"),
    "exclusiveMinimum": _bound("not above"),
    "minLength": _length("at least", "characters"),
    "maxLength": _length("at most", "characters"),
    "minItems": _length("at least", "entries"),
    "maxItems": _length("at most", "entries"),
}
