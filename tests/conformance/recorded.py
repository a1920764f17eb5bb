"""The data beside the project: lines, and where an answer differs from what a line records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[3] / "shared" / "conformance"
MISSING = f"the conformance data is not beside the project: {DATA}"
FILES = (
    "cilium_examples_engine.jsonl",
    "cilium_policy_tuples.jsonl",
    "cilium_policy_tuples_v165_requires.jsonl",
    "k8s_netpol_cyclonus.jsonl",
    "k8s_netpol_upstream_e2e.jsonl",
    "k8s_recipes.jsonl",
)
EXCEPTIONS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "exceptions.json").read_text())

Line = dict[str, Any]


def lines(name: str) -> list[Line]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def compared(line: Line, answer: Line) -> Iterator[tuple[str, object, object]]:
    """What was asked, what is recorded and what was answered, of every verdict in a line."""
    if "flows" in line:
        for number, (recorded, found) in enumerate(zip(line["flows"], answer["flows"], strict=True)):
            yield (f"flow {number}", *_flow(recorded, found))
    elif "pods" in line:
        yield from _cells(line, answer["tables"])
    else:
        (found,) = answer["flows"]
        yield "the flow", line["expect"], "denied" if found["verdict"] == "denied" else "allowed"


def _flow(recorded: Line, found: Line) -> tuple[object, object]:
    if "expect" in recorded:
        return recorded["expect"], "deny" if found["verdict"] == "denied" else "allow"
    sides = ("verdict", "egress", "ingress")
    return [recorded.get(side) for side in sides], [found[side] for side in sides]


def _cells(line: Line, tables: Line) -> Iterator[tuple[str, object, object]]:
    for name, parts in line["expect"].items():
        for part, rows in parts.items():
            for row, source, destination, mark in asked_cells(line, rows):
                found = tables[name][part][row][line["pod_order"].index(destination)]
                yield f"{name} {part} {source} {destination}", mark, found


def asked_cells(line: Line, rows: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """Row, source, destination and mark of each cell that means something."""
    order = line["pod_order"]
    for row, source in enumerate(order):
        for column, destination in enumerate(order):
            if row != column and rows[row][column] not in "P?":
                yield row, source, destination, rows[row][column]
