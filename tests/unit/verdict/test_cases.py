"""What lines of questions mean, and what is answered to each: judged from rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.model.cluster import AllowLocalhost, Enforcement
from reconciler.verdict.by_rows import RowsEngine
from reconciler.verdict.case import Settings
from reconciler.verdict.stream import Judge

Line = dict[str, Any]

WEB = {"labels": ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=default"]}
CLIENT = {"labels": ["k8s:app=client", "k8s:io.kubernetes.pod.namespace=default"]}
ENDS = {"web": WEB, "client": CLIENT, "host": {"reserved": "host"}, "init": {"reserved": "init"}, "far": {"ip": "::9"}}


def answers(*lines: Line | bytes, settings: Settings | None = None) -> list[Line]:
    text = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return Judge(RowsEngine(), settings or Settings(), "cases.jsonl").answers(text)


def cilium(spec: Line) -> Line:
    meta = {"name": "p", "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta, "spec": spec}


def policy(*ingress: Line, **more: Any) -> Line:
    return cilium({"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": list(ingress), **more})


def flow(source: str, destination: str, port: object = 80, proto: str = "TCP") -> Line:
    return {"from": source, "to": destination, "proto": proto, "port": port}


def asked(*flows: Line, docs: list[Line], ends: Mapping[str, Any] = ENDS) -> Line:
    return {"id": "case", "docs": docs, "endpoints": dict(ends), "flows": list(flows)}


def verdict(line: Line, settings: Settings | None = None) -> Line:
    (answer,) = answers(line, settings=settings)
    (found,) = answer["flows"]
    assert isinstance(found, dict)
    return found


FROM_NOBODY = policy({})
FROM_CLIENT = policy({"fromEndpoints": [{"matchLabels": {"app": "client"}}]})
HTTP = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"path": "/"}]}}


def test_a_flow_has_a_word_of_each_side_and_the_rule_behind_it() -> None:
    assert verdict(asked(flow("client", "web"), docs=[FROM_CLIENT])) == {
        "verdict": "allowed",
        "egress": "allow",
        "ingress": "allow",
        "rules": [
            {
                "side": "ingress",
                "rule": "CiliumNetworkPolicy/default/p",
                "field": "ingress[0]",
                "at": "cases.jsonl:1",
            }
        ],
    }


def test_a_default_deny_names_the_policy_that_isolates() -> None:
    found = verdict(asked(flow("client", "web"), docs=[FROM_NOBODY]))
    assert (found["verdict"], found["rules"][0]["field"]) == ("denied", "ingress")


def test_the_place_is_that_of_the_line_even_if_the_case_was_compiled_before() -> None:
    line = asked(flow("client", "web"), docs=[FROM_CLIENT])
    places = [answer["flows"][0]["rules"][0]["at"] for answer in answers(line, line)]
    assert places == ["cases.jsonl:1", "cases.jsonl:2"]


def test_an_empty_line_is_answered_too() -> None:
    line = asked(flow("client", "web"), docs=[FROM_CLIENT])
    assert [answer.get("error") for answer in answers(b"", line, b" \r")] == [
        "line 1 is empty",
        None,
        "line 3 is empty",
    ]


def test_a_side_that_nobody_polices_is_null() -> None:
    found = verdict(asked(flow("far", "web"), docs=[FROM_NOBODY]))
    assert (found["egress"], found["ingress"]) == (None, "deny")


def test_what_a_proxy_must_see_is_redirected() -> None:
    entry = {"fromEndpoints": [{}], "toPorts": [HTTP]}
    found = verdict(asked(flow("client", "web"), docs=[policy(entry)]))
    assert (found["verdict"], found["ingress"], found["rules"][0]["field"]) == (
        "redirected",
        "redirect",
        "ingress[0].toPorts[0]",
    )


def test_a_denial_on_one_side_is_stronger_than_a_redirect_on_the_other() -> None:
    to_web = cilium({"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [{"toPorts": [HTTP]}]})
    found = verdict(asked(flow("client", "web"), docs=[FROM_NOBODY, to_web]))
    assert (found["verdict"], found["egress"], found["ingress"]) == ("denied", "redirect", "deny")


@pytest.mark.parametrize(
    ("setting", "word"),
    [(AllowLocalhost.POLICY, "denied"), (AllowLocalhost.AUTO, "denied"), (AllowLocalhost.ALWAYS, "allowed")],
)
def test_the_host_reaches_its_workloads_as_the_setting_says(setting: AllowLocalhost, word: str) -> None:
    line = asked(flow("host", "web"), docs=[FROM_NOBODY])
    assert verdict(line, Settings(allow_localhost=setting))["verdict"] == word


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (Enforcement.DEFAULT, ["denied", "allowed"]),
        (Enforcement.ALWAYS, ["denied", "denied"]),
        (Enforcement.NEVER, ["allowed", "allowed"]),
    ],
)
def test_the_enforcement_mode_decides_where_no_rule_does(mode: Enforcement, words: list[str]) -> None:
    line = asked(flow("client", "web"), flow("web", "client"), docs=[FROM_NOBODY])
    (answer,) = answers(line, settings=Settings(enforcement=mode))
    assert [found["verdict"] for found in answer["flows"]] == words


def test_what_nothing_resolves_is_nobody() -> None:
    entry = {"toFQDNs": [{"matchName": "example.org"}]}
    lookup = cilium({"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [entry]})
    assert verdict(asked(flow("client", "far"), docs=[lookup]))["verdict"] == "denied"


def test_selectors_of_bare_rules_are_taken_as_written() -> None:
    rule = {"endpointSelector": {}, "ingress": [{"fromEndpoints": [{"matchLabels": {"any:a": "1"}}]}]}
    line = {
        "id": 1,
        "rules": [rule],
        "from_labels": ["k8s:a=1"],
        "to_labels": ["k8s:b=1"],
        "protocol": "TCP",
        "port": 1,
    }
    other = {**line, "from_labels": ["k8s:c=1"]}
    assert [answer["flows"][0]["verdict"] for answer in answers(line, other)] == ["allowed", "denied"]


PODS = [
    {"namespace": "x", "name": name, "labels": {"pod": name}, "ip": f"10.0.0.{number}", "ports": ports}
    for number, (name, ports) in enumerate(
        [("a", [{"name": "http", "port": 80, "protocol": "TCP"}]), ("b", [{"name": "http", "port": 81}]), ("c", [])], 1
    )
]
TO_HTTP_OF_A = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "n", "namespace": "x"},
    "spec": {
        "podSelector": {"matchLabels": {"pod": "a"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}], "ports": [{"port": "http"}]}],
    },
}


def tables(expect: Line) -> Line:
    (answer,) = answers(
        {"id": "t", "policies": [TO_HTTP_OF_A], "namespaces": {"x": {}}, "pods": PODS, "expect": expect}
    )
    found = answer["tables"]
    assert isinstance(found, dict)
    return found


def test_of_an_expected_table_only_the_questions_are_read() -> None:
    filled = {"combined": ["...", "...", "X.."]}
    assert tables({"TCP/80": {"combined": ["XXX", "XXX", "XXX"]}})["TCP/80"] == filled
    assert tables({"TCP/80": {"combined": ["...", "...", "..."]}})["TCP/80"] == filled


def test_cells_that_ask_nothing_stay_as_they_are() -> None:
    assert tables({"TCP/80": {"combined": ["?..", "P..", "?.P"]}})["TCP/80"] == {"combined": ["?..", "P..", "?.P"]}


def test_a_table_is_filled_by_side_where_that_is_asked() -> None:
    found = tables({"TCP/81": {"combined": ["...", "...", "..."], "ingress": [".X."] * 3, "egress": ["..."] * 3}})
    assert found["TCP/81"] == {
        "combined": ["...", "X..", "X.."],
        "ingress": ["...", "X..", "X.."],
        "egress": ["..."] * 3,
    }


def test_a_named_port_is_looked_up_at_each_destination() -> None:
    assert tables({"TCP/http": {"combined": ["...", "...", "..."]}})["TCP/http"] == {"combined": ["..P", "..P", "X.."]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "cases.jsonl:1:2: no JSON: Expecting"),
        (b"[]", "a line must be a mapping"),
        ({"id": 1}, "one of docs, rules and policies is needed"),
        ({"id": 1, "docs": [], "flows": []}, "neither pods nor endpoints"),
        ({"id": 1, "docs": [], "endpoints": ENDS}, "neither flows nor tables"),
        (asked(flow("web", "nobody"), docs=[]), 'no endpoint "nobody"'),
        (asked(flow("web", "client", 70000), docs=[]), "port 70000 is no number from 0 to 65535"),
        (asked(flow("web", "client", proto="XYZ"), docs=[]), 'unknown protocol "XYZ"'),
        (asked(docs=[policy({"fromEndpoint": []})]), 'did you mean "fromEndpoints"?'),
        (asked(docs=[{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "x"}}]), "is no policy"),
        (asked(docs=[], ends={"a": {"ip": "no"}}), "does not appear to be an IPv4 or IPv6 address"),
        (asked(docs=[], ends={"a": {"reserved": "me"}}), 'no reserved identity "me"'),
        ({"id": 1, "policies": [], "pods": [PODS[0], {**PODS[1], "ip": "10.0.0.1"}], "expect": {}}, "the same address"),
        ({"id": 1, "policies": [], "pods": PODS, "expect": {"TCP/80": {"combined": ["."]}}}, "3 rows of 3 characters"),
        (
            {**asked(docs=[]), "flows": [{**flow("web", "client"), "from": ["web"]}]},
            "the name of an endpoint must be a",
        ),
        (asked(docs=[], ends={"a": {"ip": 1}}), "ip must be a string"),
        *(
            (asked(docs=[], ends={"a": {"ip": ip}}), f"{ip} is no end of a flow: multicast and broadcast are dropped")
            for ip in ("224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1")
        ),
        (asked(docs=[], ends={"a": {"labels": {"app": ["web"]}}}), "app of labels must be a string"),
        (
            {"id": 1, "policies": [], "pods": [{**PODS[0], "ports": [80]}], "expect": {}},
            "a port of a pod must be a mapping",
        ),
        (asked(flow("web", "client", True), docs=[]), "port true is no number from 0 to 65535"),
        (asked(flow("web", "client", False), docs=[]), "port false is no number"),
        (asked(flow("web", "client", ""), docs=[]), 'port "" is no number'),
        (asked(docs=[], ends={"a": {"reserved": "host", "ip": "::1"}}), "endpoint a has reserved and ip"),
        (asked(docs=[], ends={"a": {"labels": ["reserved:world"], "ip": "::1"}}), "has a reserved label and ip"),
        (asked(docs=[], ends={"a": {**WEB, "ip": "no"}}), "does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_a_line_that_cannot_be_judged_is_answered_by_what_is_wrong(line: Line | bytes, words: str) -> None:
    (answer,) = answers(line)
    assert words in answer["error"]
    assert answer["id"] == (line["id"] if isinstance(line, dict) else None)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'{"id": 1, "docs": %s}', 1),
        (b' { "id" :"a-7","docs": %s}', "a-7"),
        (b'{"docs": %s, "id": 1}', None),
        (b'{"id": {"a": 1}, "docs": %s}', None),
    ],
)
def test_a_line_that_is_nested_too_deep_is_told_by_its_id_if_that_comes_first(line: bytes, name: object) -> None:
    deep = line % (b"[" * 100_000 + b"]" * 100_000)
    assert answers(deep) == [{"id": name, "error": "line 1 is nested deeper than 64 levels"}]


def test_an_endpoint_with_labels_and_an_address_is_a_workload_there() -> None:
    block = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "n", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "::/1"}}]}],
        },
    }
    ends = {"web": WEB, "client": {**CLIENT, "ip": "::7"}, "stranger": {**CLIENT, "ip": "fd00::7"}}
    (by_label,) = answers(asked(flow("client", "web"), flow("stranger", "web"), docs=[FROM_CLIENT], ends=ends))
    (by_address,) = answers(asked(flow("client", "web"), flow("stranger", "web"), docs=[block], ends=ends))
    assert [found["verdict"] for found in by_label["flows"]] == ["allowed", "allowed"]
    assert [found["verdict"] for found in by_address["flows"]] == ["allowed", "denied"]


def test_a_namespace_has_the_label_of_its_name() -> None:
    of_other = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}
    from_other = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "n", "namespace": "default"},
        "spec": {"podSelector": {}, "ingress": [{"from": [of_other]}]},
    }
    ends = {name: {"namespace": name, "labels": {"app": name}} for name in ("default", "other", "third")}
    line = asked(flow("other", "default"), flow("third", "default"), docs=[from_other], ends=ends)
    (answer,) = answers({**line, "namespaces": {"other": {"team": "x"}}})
    assert [found["verdict"] for found in answer["flows"]] == ["allowed", "denied"]


def test_a_table_has_the_order_of_its_own_line() -> None:
    two = {"a": {"labels": {"app": "a"}}, "b": {"labels": {"app": "web"}}}
    lines = [
        {"id": 1, "docs": [FROM_NOBODY], "endpoints": ends, "expect": {"TCP/80": {"combined": ["..", ".."]}}}
        for ends in (two, dict(reversed(two.items())))
    ]
    found = [answer["tables"]["TCP/80"]["combined"] for answer in answers(*lines)]
    assert found == [[".X", ".."], ["..", "X."]]


def test_half_a_character_in_an_id_ends_nothing() -> None:
    line = asked(flow("client", "web"), docs=[FROM_CLIENT])
    text = "".join(json.dumps({**line, "id": name}) + "\n" for name in ("\ud800", "ü"))
    command = [sys.executable, "-m", "reconciler.cli", "verdict"]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(answer)["id"] for answer in ran.stdout.splitlines()] == ["\ud800", "ü"]


def test_the_command_answers_line_by_line_in_order() -> None:
    lines = [{**asked(flow("client", "web"), docs=[FROM_NOBODY]), "id": number} for number in range(3)]
    text = "\n".join([json.dumps(lines[0]), "nonsense", *map(json.dumps, lines[1:])])
    command = [sys.executable, "-m", "reconciler.cli", "verdict", "--allow-localhost", "policy"]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["id"] for answer in found] == [0, None, 1, 2]
    assert "error" in found[1]


def test_an_answer_comes_before_the_next_question_is_asked() -> None:
    command = [sys.executable, "-m", "reconciler.cli", "verdict"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        for number in range(2):
            process.stdin.write(json.dumps({**asked(flow("client", "web"), docs=[]), "id": number}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
