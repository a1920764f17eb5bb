"""The health endpoint of a node: when there is one, who it is, and that workloads come first."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.host.facts import gather
from reconciler.model.cluster import Enforcement, Health, Workload
from reconciler.model.datapath import Verdict
from reconciler.model.facts import Facts
from reconciler.model.health import with_health, without_health
from reconciler.model.identity import Reserved
from reconciler.model.snapshot import Snapshot
from reconciler.store.embedded import EmbeddedStore
from tests.unit.compile.worlds import HERE, NODES, PROGRAMS, snapshot_of, workload

ENDPOINT = f"reserved:health/{HERE}"
NETNS = "/run/netns/pt-health"
SMALL = replace(NODES[HERE], cidr4=IPv4Network("10.44.1.0/30"), cidr6=None)  # two workloads' addresses
WEB = workload("web", {"app": "web"})


def world(*workloads: Workload, **cluster: object) -> Snapshot:
    snapshot = snapshot_of(workloads, **cluster)
    return with_health(replace(snapshot, nodes={**NODES, HERE: SMALL}), SMALL, NETNS)


def facts(snapshot: Snapshot, path: Path) -> Facts:
    store = EmbeddedStore(path / "store.sqlite")
    try:
        return gather(snapshot, HERE, store, frozenset())
    finally:
        store.close()


def test_a_cluster_of_one_node_has_none() -> None:
    alone = replace(snapshot_of([WEB]), nodes={HERE: SMALL})
    assert with_health(alone, SMALL, NETNS) is alone


def test_where_nobody_is_pinged_there_is_none() -> None:
    assert ENDPOINT not in world(WEB, health=Health(interval_s=0)).workloads


def test_without_it_a_commit_is_what_its_manifests_say() -> None:
    assert without_health(world(WEB)).workloads == {WEB.reference: WEB}


def test_it_is_who_it_is_by_a_reserved_identity(tmp_path: Path) -> None:
    assert facts(world(WEB), tmp_path).endpoints[ENDPOINT].identity == Reserved.HEALTH


def test_an_address_that_a_workload_asks_for_is_given_up(tmp_path: Path) -> None:
    first = facts(world(), tmp_path).endpoints[ENDPOINT].address4
    assert first == IPv4Address("10.44.1.1")
    found = facts(world(replace(WEB, address4=first)), tmp_path).endpoints
    assert (found[WEB.reference].address4, found[ENDPOINT].address4) == (first, IPv4Address("10.44.1.2"))


def test_where_workloads_need_all_addresses_it_goes_without(tmp_path: Path) -> None:
    found = facts(world(WEB, workload("client", {"app": "client"})), tmp_path).endpoints
    assert found[ENDPOINT].address4 is None


@pytest.mark.parametrize("enforcement", Enforcement)
def test_whatever_is_enforced_nodes_reach_it_and_it_reaches_nobody(tmp_path: Path, enforcement: Enforcement) -> None:
    snapshot = world(WEB, enforcement=enforcement)
    desired = compile_host(snapshot, facts(snapshot, tmp_path), CompileCache(), PROGRAMS)
    policy = desired.tables["policy"]
    own = policy.keys["subject"] == Reserved.HEALTH  # type: ignore[union-attr]
    keys, values = policy.keys[own], policy.values[own]  # type: ignore[union-attr]
    allowed = keys[values["verdict"] == Verdict.ALLOW]
    assert {(peer, bool(egress)) for peer, egress in zip(allowed["peer"], allowed["egress"], strict=True)} == {
        (Reserved.HOST, False),
        (Reserved.REMOTE_NODE, False),
    }
    assert (keys[values["verdict"] == Verdict.DEFAULT_DENY]["peer"] == 0).sum() == 2
