"""JSON Schemas of every kind, and what they find wrong in a document.

References between the files are resolved once, when they are read: validating is then a walk without look-ups.
jsonschema is imported when the first document is validated; a warm cache never needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reconciler import shipped
from reconciler.source.node import Findings, Node
from reconciler.source.phrases import nearest, report

SHARED = "common.json"

# Kinds that belong in a policy repository one day. Until then they are refused by name.
LATER_KINDS = ("Endpoints", "Ingress", "CiliumCIDRGroup")


@dataclass(frozen=True, slots=True)
class Kind:
    api_version: str
    name: str
    schema: dict[str, Any]
    errors: Callable[[Any], Iterable[Any]]  # the value of a document -> jsonschema's ValidationErrors


@cache
def kinds() -> dict[str, Kind]:
    """Kind by its name; every kind is in one API group only."""
    files = {path.name: json.loads(path.read_text()) for path in _files(shipped.schemas())}
    found = (_kind(_inline(schema, files)) for name, schema in files.items() if name != SHARED)
    return {kind.name: kind for kind in found}


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.json"))


def _kind(schema: dict[str, Any]) -> Kind:
    properties = schema["properties"]
    return Kind(properties["apiVersion"]["const"], properties["kind"]["const"], schema, _validator(schema))


def _inline(schema: Any, files: dict[str, Any]) -> Any:
    """The schema with each `$ref` replaced by what it points at; keywords beside a `$ref` win (only `description`)."""
    if isinstance(schema, list):
        return [_inline(entry, files) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    siblings = {key: _inline(value, files) for key, value in schema.items() if key != "$ref"}
    if "$ref" not in schema:
        return siblings
    name, _, pointer = schema["$ref"].partition("#/")
    target = files[name or SHARED]
    for step in pointer.split("/"):
        target = target[step]
    return {**_inline(target, files), **siblings}


def _validator(schema: dict[str, Any]) -> Callable[[Any], Iterable[Any]]:
    validators: list[Any] = []

    def errors(value: Any) -> Iterable[Any]:
        if not validators:
            from jsonschema import Draft202012Validator

            validators.append(Draft202012Validator(schema))
        return validators[0].iter_errors(value)  # type: ignore[no-any-return]

    return errors


def check(document: Node, findings: Findings) -> Kind | None:
    """The kind of a document that its schema accepts; None after reporting why it does not."""
    kind = _kind_of(document, findings)
    if kind is None:
        return None
    before = len(findings.faults)
    _warn_of_nulls(document, findings)
    errors = _errors(kind, document.value)
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    for error in errors:
        if error.validator == "type" or tuple(error.absolute_path) not in mistyped:
            report(error, document, findings)
    return kind if len(findings.faults) == before else None


def _errors(kind: Kind, value: Any) -> list[Any]:
    """Of the value without its nulls; a field that nobody knows is one, even if it is null."""
    present = _without_nulls(value)
    errors = list(kind.errors(present))
    if present == value:
        return errors
    unknown = [error for error in kind.errors(value) if error.validator == _UNKNOWN]
    return [*(error for error in errors if error.validator != _UNKNOWN), *unknown]


def _kind_of(document: Node, findings: Findings) -> Kind | None:
    if isinstance(document.value, list):
        findings.fault(
            document,
            "a list is not a manifest; a list of Cilium rules becomes `specs` of a CiliumNetworkPolicy "
            "with apiVersion, kind and metadata",
        )
        return None
    if not isinstance(document.value, dict):
        findings.fault(document, "not a manifest: a mapping with apiVersion, kind and metadata is expected")
        return None
    for field in ("kind", "apiVersion"):
        if not isinstance(document.read(field), str):
            wrong = document.value.get(field) is not None
            findings.fault(
                document.place_of(field), f"{field} must be a string" if wrong else f"the manifest has no {field}"
            )
            return None
    return _named_kind(document, document.read("kind"), document.read("apiVersion"), findings)


def _named_kind(document: Node, name: str, api_version: str, findings: Findings) -> Kind | None:
    kind = kinds().get(name)
    if kind is None:
        if name in LATER_KINDS:
            message = f"kind {name} is valid, but Plumbline does not enforce it yet"
        else:
            message = f'unknown kind "{name}"; {nearest(name, kinds())}'
        findings.fault(document.place_of("kind"), message)
        return None
    if kind.api_version != api_version:
        findings.fault(
            document.place_of("apiVersion"), f'{name} has apiVersion {kind.api_version}, not "{api_version}"'
        )
        return None
    return kind


# A null counts as absent, as it does for Kubernetes. In maps of names to strings it does not: a label without a value
# is more likely a mistake than a wish.
_KEEP_NULLS = {"matchLabels", "labels", "annotations", "sysctls", "ansible", "l7"}
_QUIET_NULLS = {"metadata", "status"}
_UNKNOWN = "additionalProperties"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: part if key in _KEEP_NULLS else _without_nulls(part) for key, part in value.items() if part is not None
        }
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def _warn_of_nulls(node: Node, findings: Findings) -> None:
    if isinstance(node.parts, list):
        for part in node.parts:
            _warn_of_nulls(part, findings)
    elif isinstance(node.parts, dict):
        for key, part in node.parts.items():
            if part.value is None:
                findings.warn(node.key_place(key), f"{key} is empty (null) and counts as absent; an empty list is []")
            elif part.parts is not None and key not in _KEEP_NULLS and key not in _QUIET_NULLS:
                _warn_of_nulls(part, findings)
