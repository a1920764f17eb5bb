"""The schema files: sound, documented, and as wide as the public formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler import shipped
from reconciler.model.cluster import Cluster, Conntrack, Timeouts
from reconciler.model.origin import Origin
from reconciler.source import manifests, schema
from reconciler.source.documents import parse
from reconciler.source.node import Findings

FILES = sorted(shipped.schemas().glob("*.json"))
KINDS = sorted(schema.kinds())


def examples() -> Iterator[Any]:
    for name, kind in sorted(schema.kinds().items()):
        for index, example in enumerate(kind.schema["examples"]):
            yield pytest.param(name, example, id=f"{name}-{index}")


def properties(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        for name, part in value.get("properties", {}).items():
            yield f"{path}/{name}", part
        for name, part in value.items():
            yield from properties(part, f"{path}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from properties(part, f"{path}/{index}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_schema_is_a_schema(path: Path) -> None:
    Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_property_is_described(kind: str) -> None:
    assert [path for path, part in properties(schema.kinds()[kind].schema) if not part.get("description")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_mapping_says_what_else_it_takes(kind: str) -> None:
    """Refuses what it does not know, or (free maps) says what values it takes, or takes anything on purpose."""
    free = {"status", "ownerReferences", "managedFields", "ansible", "labels"}
    open_mappings = [
        path
        for path, part in properties(schema.kinds()[kind].schema)
        if part.get("type") == "object" and "additionalProperties" not in part and path.split("/")[-1] not in free
    ]
    assert open_mappings == []


@pytest.mark.parametrize(("kind", "example"), list(examples()))
def test_an_example_is_valid(kind: str, example: Any) -> None:
    found = manifests.read(json.dumps(example).encode(), is_json=True)
    assert found.faults == ()
    assert [document.identity.kind for document in found.documents] == [kind]


def test_the_defaults_it_tells_are_those_of_the_model() -> None:
    spec = schema.kinds()["Cluster"].schema["properties"]["spec"]["properties"]
    base = Cluster("demo", Origin("", 1, "Cluster", "demo", ""))
    policy = spec["policy"]["properties"]
    assert spec["id"]["default"] == base.id
    assert spec["store"]["properties"]["kind"]["default"] == base.store.kind.value
    assert policy["enforcement"]["default"] == base.enforcement.value
    assert policy["allowLocalhost"]["default"] == base.allow_localhost.value
    assert policy["ipBlockMatchesWorkloads"]["default"] == base.ipblock_matches_workloads
    assert spec["conntrack"]["properties"]["maxEntries"]["default"] == Conntrack().max_entries
    timeouts = {
        name: part["default"] for name, part in spec["conntrack"]["properties"]["timeouts"]["properties"].items()
    }
    base_timeouts = Timeouts()
    assert timeouts == {
        "tcpEstablished": base_timeouts.tcp_established_s,
        "tcpOpening": base_timeouts.tcp_opening_s,
        "tcpClosing": base_timeouts.tcp_closing_s,
        "udp": base_timeouts.udp_s,
        "icmp": base_timeouts.icmp_s,
        "other": base_timeouts.other_s,
    }


def test_a_null_counts_as_absent_with_a_warning() -> None:
    text = b"apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo, creationTimestamp: null}\nspec:\n"
    found = manifests.read(text)
    assert found.faults == ()
    assert [tuple(warning) for warning in found.warnings] == [
        (4, 1, "spec is empty (null) and counts as absent; an empty list is []")
    ]


def test_a_field_that_nobody_knows_is_refused_even_if_it_is_null() -> None:
    text = b"apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\nspec: {}\nspce:\n"
    assert [tuple(fault) for fault in manifests.read(text).faults] == [
        (5, 1, 'unknown field "spce"; did you mean "spec"?')
    ]


def test_what_kubernetes_adds_to_an_object_is_accepted() -> None:
    text = (
        b"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspec: {podSelector: {}}\nstatus: {conditions: []}\n"
        b"metadata: {name: web, uid: x, resourceVersion: '1', generation: 2, creationTimestamp: '2020-01-01T00:00:00Z',"
        b" annotations: {a: b}, managedFields: [{manager: x}], ownerReferences: [{}], finalizers: [x], selfLink: /x}\n"
    )
    assert manifests.read(text).faults == ()


def test_the_nearest_branch_of_a_choice_is_reported() -> None:
    """None of our schemas has a choice yet; the words for one are ready."""
    from reconciler.source.phrases import report

    chosen = {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"port": {"maximum": 10}}}]}
    [document] = parse(b"{port: 70}")
    findings = Findings()
    for error in Draft202012Validator(chosen).iter_errors(document.value):
        report(error, document, findings)
    assert [fault.message for fault in findings.faults] == ["port 70 is above 10"]
