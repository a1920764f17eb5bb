"""Flows judged in bulk: read from JSON, compiled, judged from rows or by the kernel, answered as JSON.

Every case has policies of its own between five workloads, and 100 flows: the form and the size of public data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from reconciler.verdict.by_kernel import KernelEngine
from reconciler.verdict.by_rows import RowsEngine
from reconciler.verdict.case import Settings
from reconciler.verdict.stream import Judge
from tests.bench.figures import Figure, median

CASES = 200
ROUNDS = 3
_ENDS = 5
_PORTS = (80, 81, 443, 8080, 9090)


def measure() -> Iterator[Figure]:
    for name, make in (("rows", RowsEngine), ("kernel", KernelEngine)):
        with closing(make()) as engine:
            yield Figure(f"verdict.{name}", median([_us_a_flow(engine, turn) for turn in range(ROUNDS)]), "us/flow")


def _us_a_flow(engine: RowsEngine | KernelEngine, turn: int) -> float:
    lines = [json.dumps(_case(turn * CASES + number)).encode() for number in range(CASES)]
    began = time.perf_counter()
    answers = Judge(engine, Settings(), "bench").answers(lines)
    text = [json.dumps(answer) for answer in answers]
    spent = time.perf_counter() - began
    assert all('"denied"' in line and '"allowed"' in line for line in text)
    return spent * 1e6 / sum(len(answer["flows"]) for answer in answers)


def _case(number: int) -> dict[str, Any]:
    names = [f"w{place}" for place in range(_ENDS)]
    entry = {
        "fromEndpoints": [{"matchLabels": {"app": names[1]}}],
        "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
    }
    return {
        "id": number,
        "docs": [
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": f"p{number}"},
                "spec": {"endpointSelector": {"matchLabels": {"app": names[0]}}, "ingress": [entry]},
            }
        ],
        "endpoints": {
            name: {"labels": [f"k8s:app={name}", "k8s:io.kubernetes.pod.namespace=default"]} for name in names
        },
        "flows": [
            {"from": source, "to": destination, "proto": "TCP", "port": port}
            for source in names
            for destination in names
            for port in _PORTS
            if source != destination
        ],
    }
