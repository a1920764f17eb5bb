"""Plain scalars: what an unquoted word in YAML means.

YAML 1.1 as Kubernetes reads it (sigs.k8s.io/yaml over go-yaml v2): `yes` and `on` are booleans, dates and sexagesimal
numbers are strings. Source: yaml.org/type, go-yaml resolve.go.
"""

from __future__ import annotations

import re

_BOOLEANS = {
    spelling: value
    for words, value in (("y yes on true", True), ("n no off false", False))
    for word in words.split()
    for spelling in (word, word.capitalize(), word.upper())
    if word not in ("y", "n")  # YAML 1.1 has them, neither libyaml nor go-yaml reads them so
}
_NULLS = {"", "~", "null", "Null", "NULL"}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_BASED = re.compile(r"(?P<sign>[-+]?)(?:0x(?P<hex>[0-9a-fA-F_]+)|0b(?P<bin>[01_]+)|0o?(?P<oct>[0-7_]+))\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_UNBOUNDED = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_LONGEST_INTEGER = 19  # digits of 2**63; more would be rounded or refused by every reader of the public formats


class ScalarError(ValueError):
    """A scalar that no JSON value stands for; the message says why."""


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar. Raises ScalarError for numbers that JSON cannot express."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] in "-+.0123456789":
        return _number(text)
    return text


def _number(text: str) -> str | int | float:
    if _INTEGER.match(text):
        return _bounded(text.replace("_", ""), 10)
    if based := _BASED.match(text):
        for group, base in (("hex", 16), ("bin", 2), ("oct", 8)):
            if digits := (based[group] or "").replace("_", ""):
                return _bounded(based["sign"] + digits, base)
    if _UNBOUNDED.match(text):
        raise ScalarError(f"{text} is not a number that a manifest can hold")
    if _FLOAT.match(text):
        number = float(text.replace("_", ""))
        if number in (float("inf"), float("-inf")):
            raise ScalarError(f"{text} is too big a number")
        return number
    return text


def _bounded(digits: str, base: int) -> int:
    if len(digits.lstrip("+-")) > _LONGEST_INTEGER and base == 10:
        raise ScalarError(
            f"{digits[:24]}... is too big a number" if len(digits) > 24 else f"{digits} is too big a number"
        )
    if len(digits) > 64:
        raise ScalarError("a number of more than 64 digits is too big")
    return int(digits, base)


def kind_of(value: object) -> str:
    """The name of a value's type, for people."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a mapping"
