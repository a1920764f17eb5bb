"""Flow events as people and programs read them."""

import json
from datetime import datetime
from ipaddress import IPv6Address

from reconciler.observe.events import Decoder, shipped_layout
from reconciler.observe.flow import FlowEvent
from reconciler.observe.flow_text import Nameless, to_json, to_text

from .flows import NOON_NS, Names, record

NOON = datetime.fromtimestamp(NOON_NS / 1e9).strftime("%H:%M:%S.345")


def event(**fields: int | bytes) -> FlowEvent:
    return Decoder(shipped_layout(), lambda: NOON_NS).decode([record(**fields)])[0]


def test_a_drop_in_one_line_names_both_ends_and_the_rule_behind_it() -> None:
    assert to_text(event(), Names()) == (
        f"{NOON} drop    default/stranger (id 1234) -> default/web:80 (id 5678) tcp"
        "  policy: isolated by NetworkPolicy/default/web  policies/web.yaml:8 @ 1a2b3c4d"
    )


def test_a_verdict_names_the_entry_that_allows_it() -> None:
    line = to_text(event(type=2, reason=0, cookie=78), Names())
    assert "verdict" in line
    assert line.endswith("policy: allowed by NetworkPolicy/default/web ingress[0]  policies/web.yaml:12 @ 1a2b3c4d")


def test_an_end_that_is_no_workload_shows_its_address_and_entity() -> None:
    assert "192.0.2.1 (world-ipv4) ->" in to_text(event(source=b"\xc0\0\2\1", source_identity=9), Names())


def test_an_ipv6_address_with_a_port_stands_in_brackets() -> None:
    line = to_text(event(family=6, destination=IPv6Address("fd00::1").packed, destination_identity=0), Names())
    assert "-> [fd00::1]:80 tcp" in line


def test_icmp_shows_type_and_code() -> None:
    assert "default/web (id 5678) icmp type 8 code 0" in to_text(event(protocol=1, destination_port=8), Names())


def test_a_reply_says_so() -> None:
    assert " tcp reply " in to_text(event(reply=1), Names())


def test_a_reason_that_is_no_policy_names_no_rule() -> None:
    assert to_text(event(reason=4, cookie=0), Names()).endswith("tcp  spoofed source")


def test_a_rule_that_is_gone_leaves_its_cookie() -> None:
    assert "no longer there (cookie 0000004d)" in to_text(event(), Nameless())


def test_json_has_stable_names() -> None:
    shown = to_json(event(), Names())
    assert json.loads(json.dumps(shown)) == {
        "time": "2027-01-15T08:00:00.345000+00:00",
        "type": "drop",
        "reason": "policy-default",
        "explanation": "A policy isolates the workload in this direction and no rule allows it.",
        "side": "ingress",
        "family": 4,
        "protocol": "tcp",
        "tcp_flags": ["SYN"],
        "source": {
            "address": "10.44.0.9",
            "port": 40000,
            "identity": 1234,
            "labels": ["k8s:app=stranger"],
            "workload": "default/stranger",
        },
        "destination": {
            "address": "10.44.0.3",
            "port": 80,
            "identity": 5678,
            "labels": ["k8s:app=web"],
            "workload": "default/web",
        },
        "reply": False,
        "rule": {
            "cookie": 77,
            "reference": "NetworkPolicy/default/web",
            "field": "ingress",
            "path": "policies/web.yaml",
            "line": 8,
            "commit": "1a2b3c4d" * 5,
        },
        "generation": 3,
        "ifindex": 9,
        "length_bytes": 74,
    }


def test_json_of_icmp_has_its_own_object() -> None:
    shown = to_json(event(protocol=58, destination_port=128, source_port=7, family=6), Names())
    assert shown["icmp"] == {"type": 128, "code": 0, "identifier": 7}
    assert "tcp_flags" not in shown


def test_json_of_unknown_numbers_keeps_them() -> None:
    shown = to_json(event(), Nameless())
    assert shown["rule"] == {"cookie": 77}
    assert shown["source"] == {"address": "10.44.0.9", "port": 40000, "identity": 1234, "labels": None, "workload": ""}
