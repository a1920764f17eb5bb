"""Writes docs/manifests.md out of schemas/: every kind with its fields, and what several kinds share.

python scripts/manifest_reference.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[1]
SCHEMAS = CHECKOUT / "schemas"
TARGET = CHECKOUT / "docs" / "manifests.md"

_KINDS = (
    "cluster",
    "node",
    "workload",
    "namespace",
    "networkpolicy",
    "ciliumnetworkpolicy",
    "ciliumclusterwidenetworkpolicy",
    "service",
    "endpointslice",
    "policytest",
    "prefilter",
)
_ENVELOPE = ("apiVersion", "kind", "status")
_REFERENCE = "common.json#/$defs/"
_HEAD = """# Manifests

A policy repository is made of these kinds. Each file may hold several documents, in YAML or JSON. A document with
a field that is not listed here is refused, with the nearest name that is. What is valid and not enforced yet is refused
in those words: see [policy.md](policy.md).

This page is generated from `schemas/` by `scripts/manifest_reference.py`.

"""

Schema = Mapping[str, Any]


def reference() -> str:
    """The whole page."""
    shared = _read("common")["$defs"]
    parts = [_HEAD + "\n".join(f"* [{_read(kind)['title']}](#{kind})" for kind in _KINDS)]
    parts += [_kind(_read(kind)) for kind in _KINDS]
    parts.append("## Shared by several kinds")
    parts += [_definition(name, shared[name]) for name in sorted(shared, key=str.lower) if name != "status"]
    return "\n\n".join(parts) + "\n"


def _read(name: str) -> Schema:
    found: Schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    return found


def _kind(schema: Schema) -> str:
    title = schema["title"]
    version = schema["properties"]["apiVersion"]["const"]
    properties = {name: part for name, part in schema["properties"].items() if name not in _ENVELOPE}
    example = yaml.safe_dump(schema["examples"][-1], sort_keys=False, default_flow_style=None, width=100)
    return "\n\n".join(
        (
            f"## {title}",
            schema["description"],
            f"`apiVersion: {version}`, `kind: {title}`.",
            _table({**schema, "properties": properties}),
            f"```yaml\n{example}```",
        )
    )


def _definition(name: str, schema: Schema) -> str:
    return "\n\n".join((f"### {name}", schema["description"], _table(schema)))


def _table(schema: Schema) -> str:
    rows = [f"| `{path}` | {kind} | {text} |" for path, kind, text in _fields(schema, "")]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])


def _fields(schema: Schema, above: str) -> Iterator[tuple[str, str, str]]:
    """Path, type and meaning of everything below, in the order of the schema; references are links."""
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        path = f"{above}{name}"
        yield path, _type(part), _meaning(part, name in required)
        inner = part
        while "items" in inner:
            inner, path = inner["items"], f"{path}[]"
        yield from _fields(inner, f"{path}.")


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix(_REFERENCE)
        return "object" if name == "status" else f"[{name}](#{name.lower()})"
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "const" in schema:
        return f"`{schema['const']}`"
    found = schema.get("type", "any")
    return " or ".join([found] if isinstance(found, str) else found)


def _meaning(schema: Schema, is_required: bool) -> str:
    text = _described(schema)
    if is_required:
        text = f"**Required.** {text}"
    if "enum" in schema:
        text += f" One of {', '.join(f'`{one}`' for one in schema['enum'] if one != '' and one is not False)}."
    if limits := _limits(schema):
        text += f" {limits}"
    if "default" in schema:
        text += f" Default: `{json.dumps(schema['default'])}`."
    return text.replace("|", "\\|").strip()


def _described(schema: Schema) -> str:
    """A reference without words of its own has those of what it refers to."""
    if "description" in schema or "$ref" not in schema:
        return str(schema.get("description", ""))
    return str(_read("common")["$defs"][schema["$ref"].removeprefix(_REFERENCE)]["description"])


def _limits(schema: Schema) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if low is None or "maximum" not in schema:
        return ""
    return f"From {low} to {schema['maximum']}." if "minimum" in schema else f"Above {low}, to {schema['maximum']}."


if __name__ == "__main__":
    TARGET.write_text(reference())
