"""What no public data asks about: ICMP of both families and SCTP, from the rows and from the kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from reconciler.verdict.by_kernel import KernelEngine
from reconciler.verdict.by_rows import Engine, RowsEngine
from reconciler.verdict.case import Settings
from reconciler.verdict.stream import Judge

pytestmark = pytest.mark.root

NAMESPACE = "k8s:io.kubernetes.pod.namespace=default"
FIELDS = [{"type": 8, "family": "IPv4"}, {"type": 3}, *({"type": kind, "family": "IPv6"} for kind in (128, 1))]
LINE: dict[str, Any] = {
    "docs": [
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "messages"},
            "spec": {
                "endpointSelector": {"matchLabels": {"app": "server"}},
                "ingress": [
                    {"fromEntities": ["all"], "icmps": [{"fields": FIELDS}]},
                    {"fromEntities": ["all"], "toPorts": [{"ports": [{"port": "9", "protocol": "SCTP"}]}]},
                ],
            },
        }
    ],
    "endpoints": {
        "server": {"labels": ["k8s:app=server", NAMESPACE]},
        "client": {"labels": ["k8s:app=client", NAMESPACE]},
        "host": {"reserved": "host"},
        "far4": {"ip": "203.0.113.9"},
        "far6": {"ip": "2001:db8::9"},
    },
}
NODES = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumClusterwideNetworkPolicy",
    "metadata": {"name": "nodes"},
    "spec": {"nodeSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "22", "protocol": "TCP"}]}]}]},
}
ALLOWED = {("ICMP", 8), ("ICMP", 3), ("ICMPv6", 128), ("ICMPv6", 1), ("SCTP", 9)}
ASKED = sorted(ALLOWED | {("ICMP", kind) for kind in (0, 5, 11, 13)} | {("ICMPv6", 2), ("ICMPv6", 129), ("SCTP", 8)})


@pytest.mark.parametrize("source", ["client", "host", "far4", "far6"])
def test_messages_and_sctp_are_judged_alike(source: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs")
    other = {"far4": "ICMPv6", "far6": "ICMP"}.get(source)  # of the family that it does not have
    asked = [one for one in ASKED if one[0] != other]
    by_rows, by_kernel = (verdicts(make(), source, asked) for make in (RowsEngine, KernelEngine))
    assert by_rows == by_kernel == ["allowed" if one in ALLOWED else "denied" for one in asked]


def verdicts(engine: Engine, source: str, asked: list[tuple[str, int]]) -> list[Any]:
    flows = [{"from": source, "to": "server", "proto": protocol, "port": port} for protocol, port in asked]
    with closing(engine):
        (answer,) = Judge(engine, Settings(), "case").answers([json.dumps({**LINE, "flows": flows}).encode()])
    return [flow["verdict"] for flow in answer["flows"]]


@pytest.mark.parametrize("make", [RowsEngine, KernelEngine])
def test_an_end_in_audit_mode_is_told_what_it_would_deny(make: Callable[[], Engine]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs")
    server = {**LINE["endpoints"]["server"], "policyAuditMode": True}
    line = {**LINE, "endpoints": {**LINE["endpoints"], "server": server}}
    flows = [{"from": "client", "to": "server", "proto": "SCTP", "port": port} for port in (8, 9)]
    with closing(make()) as engine:
        (answer,) = Judge(engine, Settings(), "case").answers([json.dumps({**line, "flows": flows}).encode()])
    assert [flow["verdict"] for flow in answer["flows"]] == ["allowed", "allowed"]
    assert [flow.get("audited") for flow in answer["flows"]] == [["ingress"], None]


@pytest.mark.parametrize("make", [RowsEngine, KernelEngine])
def test_a_rule_for_nodes_is_the_hosts_own_side(make: Callable[[], Engine]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs")
    flows = [
        {"from": "server", "to": "host", "proto": "TCP", "port": 22},
        {"from": "server", "to": "host", "proto": "TCP", "port": 80},
        {"from": "host", "to": "server", "proto": "SCTP", "port": 9},
    ]
    line = {**LINE, "docs": [*LINE["docs"], NODES], "flows": flows}
    with closing(make()) as engine:
        (answer,) = Judge(engine, Settings(), "case").answers([json.dumps(line).encode()])
    assert [flow["verdict"] for flow in answer["flows"]] == ["allowed", "denied", "allowed"]


def test_nothing_stays_pinned() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs")
    engine = KernelEngine()
    assert engine.pin_root.is_dir()
    engine.close()
    assert not engine.pin_root.exists()
