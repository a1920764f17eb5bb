"""What a commit changes on other nodes is an estimate: what only they know does not refuse it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.engine.rows import DictRows
from reconciler.errors import CompileError
from reconciler.host.elsewhere import Elsewhere
from reconciler.host.target import Target
from reconciler.model.cluster import Network, Node
from reconciler.model.snapshot import Snapshot
from reconciler.store.embedded import EmbeddedStore
from tests.unit.compile.worlds import COMMIT, HERE, NODES, PROGRAMS, THERE, facts_of, snapshot_of, workload

WEB = workload("web", {"app": "web"})
BOTH_FAMILIES = {
    HERE: replace(NODES[HERE], address6=IPv6Address("2001:db8::1")),
    THERE: replace(NODES[THERE], address6=IPv6Address("2001:db8::2")),
}


def world(network: Network, nodes: dict[str, Node]) -> Snapshot:
    snapshot = snapshot_of([WEB], network=network)
    return replace(snapshot, nodes=nodes)


def told(path: Path, nodes: dict[str, Node]) -> list[str]:
    """What is said of a commit that turns direct routes on."""
    before, after = world(Network(), nodes), world(Network(direct_routes=True), nodes)
    facts = replace(facts_of([WEB]), underlay={4: "eth0", 6: "eth0"})
    desired = compile_host(after, facts, CompileCache(), PROGRAMS)
    tables = {**desired.tables, "programs": DictRows({}, {})}
    store = EmbeddedStore(path / "store.sqlite")
    try:
        return list(Elsewhere(before, Target(after, facts, replace(desired, tables=tables)), store).lines())
    finally:
        store.close()


def test_direct_routes_of_another_node_do_not_need_its_devices_here(tmp_path: Path) -> None:
    assert told(tmp_path, BOTH_FAMILIES) == [f"{THERE}: plan from {COMMIT[:12]}: routes +2 ~0 -0"]


def test_a_direct_route_that_manifests_rule_out_is_refused_for_another_node(tmp_path: Path) -> None:
    nodes = {**BOTH_FAMILIES, HERE: replace(NODES[HERE], address6=None)}
    with pytest.raises(CompileError, match=rf"^{THERE}: .*no direct route to fd44:1::/112 of {HERE}"):
        told(tmp_path, nodes)
