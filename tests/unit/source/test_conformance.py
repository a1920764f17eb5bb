"""Documents of others, and the verdicts that their own engines gave on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.labels import parse_label, workload_labels
from reconciler.model.policy import PolicyRule
from reconciler.source import manifests, schema
from reconciler.source.documents import parse
from reconciler.source.node import Findings
from reconciler.source.stamp import Settings, bind

from .reference_verdict import End, allowed

DATA = Path(__file__).parents[4] / "shared" / "conformance"
NOT_ENFORCED = "does not enforce it yet"
SETTINGS = Settings("default", ipblock_matches_workloads=True)
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}
CONVERTED = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy")

# An endpoint that no cluster has: with two namespaces.
IMPOSSIBLE = {("ex-0368", "egress1peer0")}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the conformance data is not beside the project: {DATA}")


def lines(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open() as file:
        yield from map(json.loads, file)


def read(document: dict[str, Any]) -> manifests.Manifest:
    return manifests.read(json.dumps(document).encode(), is_json=True)


def rules(documents: list[dict[str, Any]]) -> list[PolicyRule] | None:
    """None if any of them needs what is not enforced yet."""
    found = []
    for manifest in map(read, documents):
        if any(NOT_ENFORCED in fault.message for fault in manifest.faults):
            return None
        assert manifest.faults == ()
        for document in manifest.documents:
            assert isinstance(document.content, tuple)
            found += [bind(rule, SETTINGS) for rule in document.content]
    return found


def test_every_valid_example_passes_its_schema() -> None:
    refused = []
    for entry in lines("cilium_examples_index.jsonl"):
        if entry["template"] or not all(document["valid"] for document in entry["docs"]):
            continue
        data = (DATA / "cilium_examples" / entry["file"]).read_bytes()
        for document in parse(data, is_json=entry["file"].endswith(".json")):
            findings = Findings()
            if isinstance(document.value, dict) and document.read("kind") in CONVERTED:
                schema.check(document, findings)
            refused += [(entry["file"], fault) for fault in findings.faults]
    assert refused == []


def test_every_valid_rule_of_an_example_passes_the_schema_of_a_rule() -> None:
    """But for keys that Go takes in any case: `HTTP`."""
    validator = Draft202012Validator(schema.kinds()["CiliumNetworkPolicy"].schema["properties"]["spec"])
    errors = set()
    for entry in lines("cilium_examples_index.jsonl"):
        if entry["file"].endswith(".json") and all(document["valid"] for document in entry["docs"]):
            for document in parse((DATA / "cilium_examples" / entry["file"]).read_bytes(), is_json=True):
                listed = document.value if isinstance(document.value, list) else []
                errors |= {error.message for rule in listed for error in validator.iter_errors(rule)}
    assert errors == {"Additional properties are not allowed ('HTTP' was unexpected)"}


def test_rules_are_refused_exactly_where_ciliums_parser_refuses_them() -> None:
    wrong = []
    for case in lines("cilium_rule_validation.jsonl"):
        found = read(
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumClusterwideNetworkPolicy",
                "metadata": {"name": "x"},
                "spec": case["rule"],
            }
        )
        refused = any(NOT_ENFORCED not in fault.message for fault in found.faults)
        if refused == case["valid"]:
            wrong.append((case["id"], case["cilium_error"], found.faults))
    assert wrong == []


def test_verdicts_on_ciliums_examples_are_those_of_its_engine() -> None:
    wrong, count = [], 0
    for case in lines("cilium_examples_engine.jsonl"):
        found = rules(case["docs"]) if case["docs"] else None
        if found is None:
            continue
        ends = {name: cilium_end(end, case["named_ports_tcp"]) for name, end in case["endpoints"].items()}
        for flow in case["flows"]:
            if {(case["id"], flow["from"]), (case["id"], flow["to"])} & IMPOSSIBLE:
                continue
            count += 1
            verdict = allowed(found, ends[flow["from"]], ends[flow["to"]], PROTOCOLS[flow["proto"]], flow["port"])
            if verdict != (flow["verdict"] != "denied"):
                wrong.append((case["id"], flow))
    assert wrong == []
    assert count > 4_000


def cilium_end(end: dict[str, Any], named_ports: dict[str, int]) -> End:
    ports = frozenset((name, PROTOCOLS["TCP"], port) for name, port in named_ports.items())
    if "labels" in end:
        return End(frozenset(map(parse_label, end["labels"])), ports=ports)
    if "ip" in end:
        address = ip_address(end["ip"])
        world = Reserved.WORLD_IPV4 if address.version == 4 else Reserved.WORLD_IPV6
        return End(reserved_labels(world), address, is_workload=False, policed=False)
    identity = Reserved[end["reserved"].upper().replace("-", "_")]
    return End(reserved_labels(identity), is_workload=False, policed=identity in (Reserved.INIT, Reserved.HEALTH))


@pytest.mark.parametrize(
    ("name", "least"), [("k8s_netpol_upstream_e2e.jsonl", 500), ("k8s_netpol_cyclonus.jsonl", 100_000)]
)
def test_verdicts_on_network_policies_are_those_of_kubernetes(name: str, least: int) -> None:
    wrong, count = [], 0
    for case in lines(name):
        found = rules(case["policies"])
        assert found is not None
        ends = {f"{pod['namespace']}/{pod['name']}": kubernetes_end(pod, case["namespaces"]) for pod in case["pods"]}
        for source, destination, protocol, port, expected in kubernetes_flows(case, ends):
            count += 1
            if allowed(found, ends[source], ends[destination], protocol, port) != expected:
                wrong.append((case["id"], source, destination, protocol, port))
    assert wrong == []
    assert count > least


def kubernetes_end(pod: dict[str, Any], namespaces: dict[str, dict[str, str]]) -> End:
    labels = workload_labels(pod["namespace"], pod["labels"], namespaces[pod["namespace"]], "default")
    ports = frozenset((port["name"], PROTOCOLS[port["protocol"]], port["port"]) for port in pod["ports"])
    return End(labels, ip_address(pod["ip"]), ports=ports)


def kubernetes_flows(case: dict[str, Any], ends: dict[str, End]) -> Iterator[tuple[str, str, int, int, bool]]:
    order = case["pod_order"]
    for key, table in case["expect"].items():
        name, _, port = key.partition("/")
        protocol = PROTOCOLS[name]
        for i, source in enumerate(order):
            for j, destination in enumerate(order):
                mark = table["combined"][i][j]
                numbers = {
                    number for known, kind, number in ends[destination].ports if (known, kind) == (port, protocol)
                }
                if i == j or mark in "?P" or not (port.isdigit() or numbers):
                    continue
                yield source, destination, protocol, int(port) if port.isdigit() else min(numbers), mark == "."


def test_verdicts_on_the_recipes_are_what_their_text_says() -> None:
    wrong = []
    for case in lines("k8s_recipes.jsonl"):
        found = rules(case["policies"])
        assert found is not None
        ends = {name: recipe_end(end, case["namespaces"]) for name, end in case["endpoints"].items()}
        wrong += [
            (case["id"], flow)
            for flow in case["flows"]
            if allowed(found, ends[flow["from"]], ends[flow["to"]], PROTOCOLS[flow["protocol"]], flow["port"])
            != (flow["expect"] == "allow")
        ]
    assert wrong == []


def recipe_end(end: dict[str, Any], namespaces: dict[str, dict[str, str]]) -> End:
    if "ip" in end:
        return End(reserved_labels(Reserved.WORLD_IPV4), ip_address(end["ip"]), is_workload=False, policed=False)
    return End(workload_labels(end["namespace"], end["labels"], namespaces[end["namespace"]], "default"))
