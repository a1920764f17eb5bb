"""What a commit changes on other nodes is an estimate: what only they know does not refuse it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.engine.rows import DictRows
from reconciler.errors import CompileError
from reconciler.host.elsewhere import WITHIN_S, Elsewhere
from reconciler.host.target import Target
from reconciler.model.cluster import Cluster, Network, Node
from reconciler.model.datapath import ProgramRow
from reconciler.model.service import Service
from reconciler.model.snapshot import Snapshot
from reconciler.store.embedded import EmbeddedStore
from tests.unit.compile.service_worlds import SERVING, service
from tests.unit.compile.worlds import CLUSTER, COMMIT, HERE, NODES, PROGRAMS, THERE, facts_of, snapshot_of, workload

WEB = workload("web", {"app": "web"})
BOTH_FAMILIES = {
    HERE: replace(NODES[HERE], address6=IPv6Address("2001:db8::1")),
    THERE: replace(NODES[THERE], address6=IPv6Address("2001:db8::2")),
}


def world(network: Network, nodes: dict[str, Node]) -> Snapshot:
    snapshot = snapshot_of([WEB], network=network)
    return replace(snapshot, nodes=nodes)


def programs_of(snapshot: Snapshot, node: str) -> DictRows:
    """Their digests tell whether the cluster serves Services; those at node devices are needed where it does."""
    names = (*PROGRAMS, "from_netdev", "to_netdev")
    return DictRows({name: ProgramRow(f"{name} {snapshot.cluster.services is not None}") for name in names})


def lines(path: Path, before: Snapshot, after: Snapshot, clock: Callable[[], float] = time.monotonic) -> list[str]:
    """What is said of a commit on the node `alpha`."""
    facts = replace(facts_of(after.workloads.values()), underlay={4: "eth0", 6: "eth0"})
    desired = compile_host(after, facts, CompileCache(), PROGRAMS)
    store = EmbeddedStore(path / "store.sqlite")
    try:
        return list(Elsewhere(before, Target(after, facts, desired), store, programs_of, clock).lines())
    finally:
        store.close()


def told(path: Path, nodes: dict[str, Node]) -> list[str]:
    """What is said of a commit that turns direct routes on."""
    return lines(path, world(Network(), nodes), world(Network(direct_routes=True), nodes))


def serving(*services: Service, cluster: Cluster = SERVING) -> Snapshot:
    return replace(snapshot_of([WEB]), cluster=cluster, services={one.reference: one for one in services})


def test_a_service_is_planned_with_its_frontends_and_a_backend_that_is_here(tmp_path: Path) -> None:
    web = service(external_ips=(IPv4Address("198.51.100.3"),))
    [line] = lines(tmp_path, serving(), serving(web))
    counted = "backends +1 ~0 -0", "services +1 ~0 -0", "frontends +3 ~0 -0"
    assert line.startswith(f"{THERE}: plan from {COMMIT[:12]}: ")
    assert all(one in line for one in counted), line


def test_a_cluster_that_begins_to_serve_changes_programs_and_what_is_at_devices(tmp_path: Path) -> None:
    [line] = lines(tmp_path, serving(cluster=CLUSTER), serving())
    counted = "programs +0 ~4 -0", "devices +1 ~0 -0", "attachments +2 ~0 -0"
    assert all(one in line for one in counted), line


def test_nodes_that_a_push_cannot_wait_for_are_counted(tmp_path: Path) -> None:
    many = {**NODES, "gamma": replace(NODES[THERE], name="gamma"), "delta": replace(NODES[THERE], name="delta")}
    snapshot = replace(serving(), nodes=many)
    seconds = itertools.count(step=WITHIN_S - 1)
    assert lines(tmp_path, snapshot, snapshot, lambda: next(seconds)) == [
        f"{THERE}: plan from {COMMIT[:12]}: no change",
        "plumb: no plan is worked out for 2 more nodes",
    ]


def test_a_service_that_stays_as_it_is_is_no_change(tmp_path: Path) -> None:
    assert lines(tmp_path, serving(service()), serving(service())) == [f"{THERE}: plan from {COMMIT[:12]}: no change"]


def test_direct_routes_of_another_node_do_not_need_its_devices_here(tmp_path: Path) -> None:
    assert told(tmp_path, BOTH_FAMILIES) == [f"{THERE}: plan from {COMMIT[:12]}: routes +2 ~0 -0"]


def test_a_direct_route_that_manifests_rule_out_is_refused_for_another_node(tmp_path: Path) -> None:
    nodes = {**BOTH_FAMILIES, HERE: replace(NODES[HERE], address6=None)}
    with pytest.raises(CompileError, match=rf"^{THERE}: .*no direct route to fd44:1::/112 of {HERE}"):
        told(tmp_path, nodes)
