"""Lines of JSON and their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.source.bulk import answer

RULE = {"endpointSelector": {}, "ingress": [{"fromEntities": ["host"]}]}
WRONG = {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]}
POLICY = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: web}\n"


def errors(line: dict[str, Any]) -> list[str]:
    found = answer(json.dumps(line).encode(), "rules.jsonl", 7)
    assert found.id == line.get("id")
    return [str(fault) for fault in found.faults]


def of_kind(kind: str, version: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, **more}


@pytest.mark.parametrize(
    "line",
    [
        {"id": 1, "rule": RULE},
        {"id": "a", "rule": [RULE, RULE]},
        {"id": None, "rule": {"EndpointSelector": {}, "INGRESS": [{"FromEntities": ["host"]}]}},
        {"id": "a", "doc": of_kind("CiliumNetworkPolicy", "cilium.io/v2", spec=RULE)},
        {"id": "a", "doc": of_kind("Namespace", "v1")},
        {"id": "a", "doc": f"# text\n{POLICY}spec: {json.dumps(RULE)}\n"},
        {"id": "a", "rule": {**RULE, "description": '\U0001f600 \\ud83d \\\\ud83d\\ude00 " \u2028'}},
    ],
)
def test_what_is_right_has_no_errors(line: dict[str, Any]) -> None:
    assert errors(line) == []


@pytest.mark.parametrize(
    "line",
    [
        {"rule": {"nodeSelector": {}, "ingress": [{"fromNodes": [{}]}]}},
        {"rule": {**RULE, "egress": [{"toFQDNs": [{"matchName": "example.org"}]}]}},
        {"rule": {**RULE, "ingress": [{"toPorts": [{"ports": [{"protocol": "VRRP"}]}]}]}},
        {"doc": of_kind("CiliumCIDRGroup", "cilium.io/v2", spec={"externalCIDRs": ["192.0.2.0/24"]})},
    ],
)
def test_what_is_valid_and_not_enforced_yet_is_valid(line: dict[str, Any]) -> None:
    assert errors(line) == []


def test_an_error_names_the_line_the_column_and_the_field() -> None:
    [error] = errors({"id": "a", "rule": WRONG})
    column = json.dumps({"id": "a", "rule": WRONG}).index('"70000"') + 1
    field = "rule.ingress[0].toPorts[0].ports[0].port"
    assert error == f"rules.jsonl:7:{column}: {field}: port 70000 is above 65535"


def test_an_error_in_a_text_has_its_place_in_the_text() -> None:
    text = f"{POLICY}spec:\n  endpointSelector: {{}}\n  ingress: [{{fromEntities: [hots]}}]\n"
    [error] = errors({"id": "ex-1", "doc": text})
    assert error.startswith('ex-1:6:29: spec.ingress[0].fromEntities[0]: unknown entity "hots"')
    [named] = errors({"id": "ex-1", "file": "web.yaml", "doc": text})
    assert named.startswith("web.yaml:6:29: ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": 1}, "one of doc and rule"),
        ({"id": 1, "rule": RULE, "doc": {}}, "one of doc and rule"),
        ({"id": 1, "rule": []}, "the list has no rule"),
        ({"id": 1, "rule": "x"}, "must be a mapping"),
        ({"id": 1, "doc": "# nothing\n"}, "there is no manifest in it"),
        ({"id": 1, "doc": "a: [\n"}, "YAML syntax"),
        ({"id": 1, "doc": of_kind("Deployment", "apps/v1")}, "unknown kind"),
    ],
)
def test_what_cannot_be_judged_is_an_error(line: dict[str, Any], said: str) -> None:
    assert said in errors(line)[0]


@pytest.mark.parametrize("line", [b"{", b"[]", b"1", b"", b"\xff", b'{"id": "\\ud83d"}'])
def test_a_line_that_is_no_object_is_an_error_without_an_id(line: bytes) -> None:
    found = answer(line, "rules.jsonl", 1)
    assert found.id is None
    assert len(found.faults) == 1
