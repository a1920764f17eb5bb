"""Rules and manifests of others are accepted and refused as their own parser did.

Source: `cilium_rule_validation.jsonl` and the example manifests; `plumb validate --jsonl` answers with the same call.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.source.bulk import Answer, answer
from reconciler.source.documents import parse
from tests.unit.cli.plumb import plumb

DATA = Path(__file__).parents[3] / "shared" / "conformance"
POLICIES = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy")
# fromRequires: gone from Cilium 1.19, which recorded the answers; here it is enforced, as in Cilium 1.6.
ACCEPTED_HERE = {"ex-0031", "ex-0193", "ex-0194"}
PLACE = re.compile(r"[^:]+:[1-9][0-9]*:[1-9][0-9]*: (rule|doc|[a-z]\w*)([.\[][^:]*)?: .{10,}")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the conformance data is not beside the project: {DATA}")


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def examples() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each recorded document of an example with what was recorded of it."""
    for entry in lines("cilium_examples_index.jsonl"):
        if entry["template"]:
            continue
        path = DATA / "cilium_examples" / entry["file"]
        values = [node.value for node in parse(path.read_bytes(), is_json=path.suffix == ".json")]
        rules = [{"rule": rule} for value in values if isinstance(value, list) for rule in value]
        documents = [{"doc": one} for one in values if isinstance(one, dict) and one["kind"] in POLICIES]
        yield from zip(rules or documents, entry["docs"], strict=True)


def asked(case: dict[str, Any], identity: str) -> Answer:
    return answer(json.dumps({"id": identity, **case}).encode(), "cases.jsonl", 1)


def test_every_rule_is_accepted_or_refused_as_ciliums_parser_did() -> None:
    wrong = []
    for case in lines("cilium_rule_validation.jsonl"):
        found = asked({"rule": case["rule"]}, case["id"])
        if (not found.faults) is not case["valid"]:
            wrong.append((case["id"], case["cilium_error"], found.faults))
    assert wrong == []


def test_every_example_is_accepted_or_refused_as_ciliums_parser_did() -> None:
    wrong, count = [], 0
    for case, recorded in examples():
        count += 1
        valid = recorded["valid"] or recorded["id"] in ACCEPTED_HERE
        if (not (found := asked(case, recorded["id"])).faults) is not valid:
            wrong.append((recorded, found.faults))
    assert wrong == []
    assert count == 414


def test_every_refusal_names_line_column_and_field() -> None:
    refused = [asked({"rule": case["rule"]}, case["id"]) for case in lines("cilium_rule_validation.jsonl")]
    refused += [asked(case, recorded["id"]) for case, recorded in examples()]
    said = [str(fault) for found in refused for fault in found.faults]
    assert [text for text in said if not PLACE.fullmatch(text)] == []
    assert len(said) > 60


def test_the_command_answers_each_line_in_order_hundreds_in_a_second() -> None:
    path = DATA / "cilium_rule_validation.jsonl"
    began = time.monotonic()
    result = plumb("validate", "--jsonl", str(path))
    spent_s = time.monotonic() - began
    cases, found = lines(path.name), [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["id"], one["valid"]) for one in found] == [(case["id"], case["valid"]) for case in cases]
    assert all(bool(one["errors"]) is not one["valid"] for one in found)
    assert len(cases) / spent_s > 50  # the machine may be busy; alone it is some 500
