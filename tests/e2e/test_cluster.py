"""A cluster as its users see it: policy, identities and addresses across hosts, by commits alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.model.cluster import NetworkMode
from reconciler.model.overlay import PORTS as TUNNEL_PORTS
from tests.e2e.across import sniffed
from tests.e2e.daemon_host import policy, until
from tests.e2e.lab_cluster import PORTS, LabCluster, lab_cluster
from tests.e2e.packet_flow import Flow, lossless, stopped

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    with lab_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(made: LabCluster) -> Iterator[LabCluster]:
    """Ends as it began."""
    with made.restored():
        yield made


def test_policy_holds_between_hosts_by_both_families(cluster: LabCluster) -> None:
    with (
        lossless(cluster, "client", "web", PORTS[0]),
        lossless(cluster, "spare", "web", PORTS[1]),
        stopped(cluster, "stranger", "web", 9002),
        stopped(cluster, "tester", "web", 9003),
    ):
        pass


def test_the_same_labels_have_the_same_identity_on_every_host(cluster: LabCluster) -> None:
    assert cluster.identity("client") == cluster.identity("spare")
    assert cluster.identity("tester") == cluster.identity("stranger")
    assert cluster.identity("client") != cluster.identity("stranger")


def test_every_host_knows_the_workloads_of_all_others(cluster: LabCluster) -> None:
    for workload in cluster.where:
        for address in cluster.addresses(workload):
            assert {cluster.known(node)[address] for node in cluster.nodes} == {cluster.identity(workload)}


def test_the_wire_between_hosts_carries_the_senders_identity(cluster: LabCluster) -> None:
    port = TUNNEL_PORTS[NetworkMode.VXLAN]
    with sniffed(cluster.space("beta"), "eth0", port) as seen, lossless(cluster, "client", "web", PORTS[0]):
        pass
    web, client = cluster.addresses("web"), cluster.addresses("client")
    senders = {(packet.source, packet.vni) for packet in seen() if packet.destination in web}
    assert senders == {(address, cluster.identity("client")) for address in client}
    assert {packet.vni for packet in seen() if packet.source in web} == {cluster.identity("web")}


def test_an_allow_that_is_removed_cuts_flows_between_hosts(cluster: LabCluster) -> None:
    with Flow(cluster, "client", "web", PORTS[0]) as flow:
        flow.more()
        until(lambda: flow.arrived > 0, "the client is served")
        cluster.write("web.yaml", policy("web", "web", ingress=[]))
        cluster.converged(cluster.commit())
        flow.more(100)
        arrived = flow.arrived
        flow.more()
        assert flow.arrived == arrived


def test_a_workload_that_comes_is_known_to_the_rules_of_other_hosts(cluster: LabCluster) -> None:
    cluster.add("late", "gamma", "client")
    cluster.converged(cluster.commit())
    assert cluster.identity("late") == cluster.identity("client")
    cluster.heard("beta")
    with lossless(cluster, "late", "web", PORTS[0]):
        pass


def test_a_workload_whose_labels_change_is_judged_by_its_new_ones_elsewhere(cluster: LabCluster) -> None:
    cluster.add("spare", "gamma", "stranger")
    cluster.converged(cluster.commit())
    assert cluster.identity("spare") == cluster.identity("stranger")
    cluster.heard("beta")
    with stopped(cluster, "spare", "web", PORTS[0]):
        pass


def test_a_workload_may_move_to_another_host_and_is_reached_there(cluster: LabCluster) -> None:
    cluster.add("web", "gamma", "web")
    cluster.converged(cluster.commit())
    cluster.heard("alpha")
    with lossless(cluster, "client", "web", PORTS[0]), stopped(cluster, "stranger", "web", PORTS[1]):
        pass


def test_two_nodes_with_one_cidr_are_refused_in_words_by_every_host(cluster: LabCluster) -> None:
    before = cluster.git("rev-parse", "HEAD")
    cluster.write("nodes/gamma.yaml", cluster.manifest("gamma", cidrs=["10.62.0.0/24"]))
    commit = cluster.commit()
    outcomes = [cluster.client(node).get("/v1/wait", commit=commit, timeout_s=10) for node in cluster.nodes]
    assert {one["result"] for one in outcomes} == {"refused"}
    for one in outcomes:
        assert cluster.node("beta") in one["error"]
        assert "nodes/gamma.yaml:" in one["error"]
    assert {cluster.status(node)["commit"] for node in cluster.nodes} == {before}
