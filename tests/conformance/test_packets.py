"""Recorded verdicts with real packets between namespaces, through a host that converged on the policies.

SCTP has no sockets on every kernel: its verdicts are asked for in `test_verdicts` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from reconciler.model.policy import PROTOCOLS

from .probing import TCP, UDP, Probe, Probing
from .recorded import DATA, MISSING, Line, asked_cells, lines
from .site import OUTSIDE, Pod, site

PORTS = (53, 80, 81, 5000, 6379, 8000)
KUBERNETES = IPv4Network("192.168.1.0/24")
RECIPES = IPv4Network("10.44.0.0/24")

pytestmark = [pytest.mark.root, pytest.mark.skipif(not DATA.is_dir(), reason=MISSING)]

Expected = dict[Probe, bool]


def test_every_upstream_case_holds_for_real_packets(tmp_path: Path) -> None:
    steps = lines("k8s_netpol_upstream_e2e.jsonl")
    pods = {Pod(pod["namespace"], pod["name"], IPv4Address(pod["ip"])) for line in steps for pod in line["pods"]}
    count = 0
    with site(tmp_path, sorted(pods, key=lambda pod: pod.address), KUBERNETES) as host, ExitStack() as open_:
        probing: Probing | None = None
        for line in steps:
            present = {Pod(pod["namespace"], pod["name"], IPv4Address(pod["ip"])): pod for pod in line["pods"]}
            host.become(present, line["namespaces"], line["policies"])
            probing = probing or Probing(host.places, PORTS, host.host.events(), open_)
            expected = dict(upstream(line))
            count += len(expected)
            assert probing.reached(expected) == expected, line["id"]
    assert count > 450


def upstream(line: Line) -> Iterator[tuple[Probe, bool]]:
    addresses = {f"{pod['namespace']}/{pod['name']}": IPv4Address(pod["ip"]) for pod in line["pods"]}
    for table, parts in line["expect"].items():
        name, _, port = table.partition("/")
        if PROTOCOLS[name] in (TCP, UDP):
            for _, source, destination, mark in asked_cells(line, parts["combined"]):
                yield Probe(addresses[source], addresses[destination], PROTOCOLS[name], int(port)), mark == "."


def test_every_recipe_holds_for_real_packets(tmp_path: Path) -> None:
    cases = lines("k8s_recipes.jsonl")
    names = sorted({(end["namespace"], name) for line in cases for name, end in members(line)})
    pods = {pair: Pod(*pair, RECIPES[place]) for place, pair in enumerate(names, 10)}
    with site(tmp_path, pods.values(), RECIPES) as host, ExitStack() as open_:
        probing: Probing | None = None
        for line in cases:
            mine = {name: pods[end["namespace"], name] for name, end in members(line)}
            host.become({mine[name]: end for name, end in members(line)}, line["namespaces"], line["policies"])
            probing = probing or Probing(host.places, PORTS, host.host.events(), open_)
            expected = dict(recipe(line, mine))
            assert probing.reached(expected) == expected, line["id"]


def members(line: Line) -> Iterable[tuple[str, Line]]:
    return [(name, end) for name, end in line["endpoints"].items() if "ip" not in end]


def recipe(line: Line, mine: dict[str, Pod]) -> Iterator[tuple[Probe, bool]]:
    addresses = {name: pod.address for name, pod in mine.items()}
    addresses |= {name: IPv4Address(end["ip"]) for name, end in line["endpoints"].items() if "ip" in end}
    assert set(addresses.values()) - {pod.address for pod in mine.values()} <= {OUTSIDE}
    for flow in line["flows"]:
        probe = Probe(addresses[flow["from"]], addresses[flow["to"]], PROTOCOLS[flow["protocol"]], flow["port"])
        yield probe, flow["expect"] == "allow"
