"""Who answers clients outside by himself: workloads of other nodes of this cluster, whoever names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import numpy as np
import pytest

from reconciler.compile.service_direct import returning_versions, taking_nodes, unreturned
from reconciler.compile.services import ServiceMemory, services
from reconciler.model.balancing import BackendFlag
from reconciler.model.cluster import (
    GENEVE_OF_ONE_VERSION,
    Cluster,
    DirectReturn,
    Network,
    NetworkMode,
    Services,
    Workload,
)
from reconciler.model.facts import NO_REMOTE, REMOTE_ROW, Facts, Peer, RemoteEndpoints
from reconciler.model.identity import FIRST_CLUSTER
from reconciler.model.service import SliceEndpoint

from .service_worlds import SERVING, World, service, slice_of, snapshot_of
from .worlds import HERE, NODES, THERE, facts_of, origin, workload

APP = {"app": "web"}
LOCAL, V6, DIRECT, DRAINING = BackendFlag.LOCAL, BackendFlag.V6, BackendFlag.DIRECT, BackendFlag.DRAINING
WAYS = [one for one in DirectReturn if one is not DirectReturn.NONE]
PAIR = [workload("a", APP), workload("b", APP, THERE)]
AWAY = ip_address("10.44.2.9")  # of a workload that another host announced


def returning(way: DirectReturn = DirectReturn.IPIP) -> Cluster:
    return replace(SERVING, services=Services(direct_return=way))


def announced(node: str = THERE, here: Facts | None = None) -> Facts:
    """What `alpha` knows where this node announced a workload with AWAY and the labels of `here`'s first."""
    facts = here or taking()
    row = (0, 0xFFFF << 32 | int(AWAY), FIRST_CLUSTER, 0, 0)
    rows = np.array([row], REMOTE_ROW)
    return replace(facts, remote=RemoteEndpoints(rows, ["default/z"], [node], [origin("Workload", "z")]))


def taking(way: str = DirectReturn.IPIP.value, some: Sequence[Workload] = (), node: str = THERE) -> Facts:
    """What `alpha` knows where this node says that it takes what is brought to it in this way."""
    peer = Peer(node, origin("Node", node), NODES[THERE].address4, direct_return=way)
    return replace(facts_of(some), peers={node: peer})


@pytest.mark.parametrize("way", WAYS)
def test_workloads_of_other_nodes_answer_directly(way: DirectReturn) -> None:
    world = World([service()], PAIR, facts=taking(way.value, PAIR), cluster=returning(way))
    assert world.states() == {"10.44.1.2:8080": LOCAL, "10.44.2.3:8080": DIRECT}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", [*(one.value for one in DirectReturn), "", "of a later version"])
def test_those_of_a_node_that_takes_another_way_or_none_do_not(way: DirectReturn, said: str) -> None:
    slices = [slice_of("other", str(AWAY))]
    other = service("other", selector={}, cluster_ips=(ip_address("10.96.0.2"),))
    facts = announced(here=taking(said, PAIR))
    world = World([service(), other], PAIR, slices, facts=facts, cluster=returning(way))
    flags = DIRECT if said == way.value else 0
    assert world.states() == {
        "10.44.1.2:8080": LOCAL,
        "10.44.2.3:8080": flags,
        f"{AWAY}:8080": flags,
        f"{AWAY}:9000": flags,
    }


@pytest.mark.parametrize(
    ("mode", "underlay", "versions"),
    [
        (NetworkMode.VXLAN, 4, {4}),
        (NetworkMode.GENEVE, 6, {6}),
        (NetworkMode.NATIVE, 0, {4, 6}),
    ],
)
def test_a_node_may_take_only_what_is_of_the_version_of_its_tunnels(
    mode: NetworkMode, underlay: int, versions: set[int]
) -> None:
    cluster = replace(returning(DirectReturn.GENEVE), network=Network(mode, underlay=underlay))
    facts = taking(GENEVE_OF_ONE_VERSION, PAIR)
    peer = replace(facts.peers[THERE], address6=ip_address("2001:db8::2"))
    facts = announced(here=replace(facts, peers={THERE: peer}))
    snapshot = replace(snapshot_of(PAIR), cluster=cluster)
    here = replace(snapshot.nodes[HERE], address6=ip_address("2001:db8::1"))
    snapshot = replace(snapshot, nodes={**snapshot.nodes, HERE: here})
    assert taking_nodes(snapshot, facts) == {THERE: versions}


def test_a_slice_then_lists_only_addresses_of_that_version_that_answer_directly() -> None:
    here, there = workload("a", APP), workload("b", {"app": "db"}, THERE)
    cluster = replace(returning(DirectReturn.GENEVE), network=Network(NetworkMode.VXLAN))
    facts = taking(GENEVE_OF_ONE_VERSION, [here, there])
    web = service(selector={}, cluster_ips=(ip_address("10.96.0.1"), ip_address("fd96::1")))
    slices = [slice_of("web", "10.44.2.3", "fd44:2::3", str(AWAY))]
    world = World([web], [here, there], slices, facts=announced(here=facts), cluster=cluster)
    assert world.states() == {"10.44.2.3:9000": DIRECT, "fd44:2::3:9000": V6, f"{AWAY}:9000": DIRECT}


def test_so_does_a_selector() -> None:
    cluster = replace(returning(DirectReturn.GENEVE), network=Network(NetworkMode.VXLAN))
    web = service(cluster_ips=(ip_address("10.96.0.1"), ip_address("fd96::1")))
    world = World([web], PAIR, facts=taking(GENEVE_OF_ONE_VERSION, PAIR), cluster=cluster)
    assert world.states() == {
        "10.44.1.2:8080": LOCAL,
        "fd44:1::2:8080": LOCAL | V6,
        "10.44.2.3:8080": DIRECT,
        "fd44:2::3:8080": V6,
    }


def test_nor_do_those_of_a_node_that_says_nothing() -> None:
    world = World([service()], PAIR, facts=facts_of(PAIR), cluster=returning())
    assert world.states() == {"10.44.1.2:8080": LOCAL, "10.44.2.3:8080": 0}


def test_nobody_does_unless_the_cluster_says_so() -> None:
    world = World([service()], PAIR, [slice_of("web", "10.44.2.3")], facts=taking(some=PAIR))
    assert world.states() == {"10.44.1.2:8080": LOCAL, "10.44.2.3:8080": 0, "10.44.2.3:9000": 0}


def test_workloads_that_other_hosts_announced_answer_directly() -> None:
    here = workload("a", APP)
    world = World([service()], [here], facts=announced(here=taking(some=[here])), cluster=returning())
    assert world.states() == {"10.44.1.2:8080": LOCAL, f"{AWAY}:8080": DIRECT}


def test_a_slice_may_list_such_a_workload() -> None:
    slices = [slice_of("web", str(AWAY))]
    world = World([service(selector={})], slices=slices, facts=announced(), cluster=returning())
    assert world.states() == {f"{AWAY}:9000": DIRECT}


def test_a_slice_may_list_a_workload_that_only_manifests_tell_of() -> None:
    here, there = workload("a", APP), workload("b", {"app": "db"}, THERE)
    slices = [slice_of("web", "10.44.2.3", "fd44:2::3")]
    web = service(selector={}, cluster_ips=(ip_address("10.96.0.1"), ip_address("fd96::1")))
    way = DirectReturn.OPTION
    world = World([web], [here, there], slices, facts=taking(way.value, [here, there]), cluster=returning(way))
    assert world.states() == {"10.44.2.3:9000": DIRECT, "fd44:2::3:9000": V6 | DIRECT}


@pytest.mark.parametrize(
    ("way", "mode", "versions"),
    [
        (DirectReturn.NONE, NetworkMode.NATIVE, set()),
        (DirectReturn.OPTION, NetworkMode.NATIVE, {4, 6}),
        (DirectReturn.IPIP, NetworkMode.NATIVE, {4}),
        (DirectReturn.GENEVE, NetworkMode.NATIVE, {4}),
        (DirectReturn.GENEVE, NetworkMode.VXLAN, {4, 6}),
    ],
)
def test_what_is_wrapped_has_an_outer_address_that_other_nodes_know(
    way: DirectReturn, mode: NetworkMode, versions: set[int]
) -> None:
    """`alpha` has no IPv6 address of its own."""
    snapshot = replace(snapshot_of([]), cluster=replace(returning(way), network=Network(mode)))
    assert returning_versions(snapshot, HERE) == versions


def test_a_version_over_which_nobody_answers_directly_is_warned_of() -> None:
    snapshot = replace(snapshot_of([]), cluster=returning())
    (warning,) = unreturned(snapshot, HERE)
    assert warning.message.startswith("clients of alpha get answers over it, not directly: it has no IPv6 address")
    assert list(unreturned(replace(snapshot, cluster=SERVING), HERE)) == []


def test_a_workload_of_a_joined_cluster_answers_over_the_host_that_was_asked() -> None:
    slices = [slice_of("web", str(AWAY))]
    far = f"far/{THERE}"
    facts = announced(far, taking(node=far))
    world = World([service(selector={})], slices=slices, facts=facts, cluster=returning())
    assert world.states() == {f"{AWAY}:9000": 0}


def test_so_do_addresses_that_no_workload_has() -> None:
    node = NODES[THERE].address4
    slices = [slice_of("web", "203.0.113.1", str(node))]
    world = World([service(selector={})], slices=slices, facts=announced(), cluster=returning())
    assert world.states() == {"203.0.113.1:9000": 0, f"{node}:9000": 0}


def test_a_workload_of_this_host_is_local_whoever_lists_it() -> None:
    here = SliceEndpoint((ip_address("10.44.1.2"),), node=HERE)
    world = World([service(selector={})], [workload("a", APP)], [slice_of("web", here)], cluster=returning())
    assert world.states() == {"10.44.1.2:9000": LOCAL}


def test_one_that_drains_still_answers_directly() -> None:
    draining = SliceEndpoint((AWAY,), ready=False, serving=True)
    slices = [slice_of("web", "203.0.113.1", draining)]
    world = World([service(selector={})], slices=slices, facts=announced(), cluster=returning())
    assert world.states() == {"203.0.113.1:9000": 0, f"{AWAY}:9000": DRAINING | DIRECT}


def test_rows_follow_the_setting_and_the_workloads_whatever_was_there_before() -> None:
    here, there = workload("a", APP), workload("b", APP, THERE)
    web, other = service(), service("other", selector={}, cluster_ips=(ip_address("10.96.0.2"),))
    plain = World([web, other], [here, there], [slice_of("other", str(AWAY))])
    direct = World([web, other], [here, there], [slice_of("other", str(AWAY))], cluster=returning())
    takes = taking(some=[here, there])
    known = announced(here=takes)
    memory = ServiceMemory()
    for snapshot, facts in (
        (plain.snapshot, known),
        (direct.snapshot, known),
        (direct.snapshot, replace(known, peers=taking("option").peers)),
        (direct.snapshot, known),
        (direct.snapshot, replace(known, peers={})),
        (direct.snapshot, replace(known, remote=NO_REMOTE)),
        (direct.snapshot, known),
        (plain.snapshot, known),
    ):
        found = services(snapshot, facts, memory).backends
        assert found.values.tobytes() == services(snapshot, facts, ServiceMemory()).backends.values.tobytes()


def test_what_did_not_change_is_not_worked_out_again() -> None:
    some, slices = [service(selector={})], [slice_of("web", str(AWAY))]
    world, memory = World(some, slices=slices, facts=announced(), cluster=returning()), ServiceMemory()
    first = services(world.snapshot, world.facts, memory).backends
    assert services(world.snapshot, world.facts, memory).backends.keys is first.keys
