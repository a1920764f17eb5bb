"""Every verdict that others recorded, from the compiled rows and from the kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from reconciler.model.cluster import AllowLocalhost
from reconciler.verdict.by_kernel import KernelEngine
from reconciler.verdict.by_rows import Engine, RowsEngine
from reconciler.verdict.case import Settings
from reconciler.verdict.stream import Judge

from .recorded import DATA, EXCEPTIONS, FILES, MISSING, Line, asked_cells, compared, lines

# As Cilium's engine was run: the host is subject to policy.
SETTINGS = Settings(allow_localhost=AllowLocalhost.POLICY)
LEAST = dict(zip(FILES, (10_868, 160, 15, 320_000, 500, 39), strict=True))

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=MISSING)


@pytest.fixture(scope="module", params=["compile", pytest.param("kernel", marks=pytest.mark.root)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "kernel" and os.geteuid() != 0:
        pytest.skip("needs root: BPF programs")
    with closing(KernelEngine() if request.param == "kernel" else RowsEngine()) as made:
        yield made


def answers(engine: Engine, asked: list[Line], settings: Settings = SETTINGS) -> list[Line]:
    return Judge(engine, settings, "cases").answers(json.dumps(line).encode() for line in asked)


@pytest.mark.parametrize("name", FILES)
def test_verdicts_are_those_that_were_recorded(engine: Engine, name: str) -> None:
    asked, differing, count = lines(name), dict[str, list[object]](), 0
    for line, answer in zip(asked, answers(engine, asked), strict=True):
        assert "error" not in answer, answer
        for what, recorded, found in compared(line, answer):
            count += 1
            if recorded != found:
                differing.setdefault(line["id"], []).append((what, recorded, found))
    known = EXCEPTIONS.get(name, {})
    assert {case: found for case, found in differing.items() if len(found) != known.get(case, {}).get("differs")} == {}
    assert differing.keys() == known.keys()
    assert count >= LEAST[name]


@pytest.mark.parametrize("name", ["k8s_netpol_cyclonus.jsonl", "k8s_netpol_upstream_e2e.jsonl"])
def test_without_ipblocks_on_pods_verdicts_differ_where_ciliums_do(engine: Engine, name: str) -> None:
    known = json.loads((DATA / "k8s_known_cilium_divergence.json").read_text())
    ciliums = {
        (case, source, destination, f"{protocol}/{port}")
        for case, entry in known.items()
        for source, destination, protocol, port, *_ in entry["pairs"]
        if entry["reason"].startswith("ipBlock")
    }
    asked = [line for line in lines(name) if line["id"] in known]
    differing = set()
    for line, answer in zip(asked, answers(engine, asked, Settings(ipblock_matches_pods=False)), strict=True):
        for table, parts in line["expect"].items():
            found = answer["tables"][table]["combined"]
            for row, source, destination, mark in asked_cells(line, parts["combined"]):
                if found[row][line["pod_order"].index(destination)] != mark:
                    differing.add((line["id"], source, destination, table))
    assert differing == {pair for pair in ciliums if pair[0] in {line["id"] for line in asked}}


@pytest.mark.parametrize("name", ["cilium_examples_engine.jsonl", "k8s_recipes.jsonl"])
def test_a_side_that_denies_names_the_rule_behind_it(engine: Engine, name: str) -> None:
    asked = lines(name)
    for answer in answers(engine, asked):
        for flow in answer["flows"]:
            named = {rule["side"] for rule in flow["rules"]}
            denied = {side for side in ("egress", "ingress") if flow[side] in ("deny", "redirect")}
            assert denied <= named | _enforced_without_rules(asked, answer["id"])


def _enforced_without_rules(asked: list[Line], case: str) -> set[str]:
    """`reserved:init` is isolated even if no rule selects it."""
    (line,) = (line for line in asked if line["id"] == case)
    has_init = {"reserved": "init"} in line["endpoints"].values()
    return {"egress", "ingress"} if has_init else set()
