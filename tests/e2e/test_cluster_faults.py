"""What befalls a cluster, with traffic between its hosts all the time.

What is allowed loses no datagram unless its path is cut, and of what is forbidden none ever arrives.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.kernel import netns
from reconciler.lab.traffic import echo_server, echoes
from tests.e2e.daemon_host import DEADLINE_S, policy, until
from tests.e2e.lab_cluster import PORTS, WEB, LabCluster, lab_cluster
from tests.e2e.packet_flow import Flow, lossless, stopped

pytestmark = pytest.mark.root

PAUSE_S = 0.04  # between bursts: some 200 datagrams a second
NOTICED_S = 12.0  # a server that hangs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    with lab_cluster(tmp_path_factory.mktemp("cluster"), health={"interval": 1, "failures": 2}) as cluster:
        yield cluster


@pytest.fixture
def cluster(made: LabCluster) -> Iterator[LabCluster]:
    """With everything running, before and after."""
    with made.restored():
        yield made
        made.up()


@pytest.fixture
def traffic(cluster: LabCluster) -> Iterator[None]:
    """From alpha to beta nothing is lost, from gamma to beta nothing gets through."""
    with flow(cluster, "client", PORTS[0]) as allowed, flow(cluster, "stranger", PORTS[1]) as forbidden:
        allowed.more(50)
        forbidden.more(50)
        yield
        allowed.more(50)
        forbidden.more(50)
    assert (allowed.lost, forbidden.arrived) == (0, 0)


@contextmanager
def flow(cluster: LabCluster, sender: str, port: int) -> Iterator[Flow]:
    with Flow(cluster, sender, "web", port, pause_s=PAUSE_S) as made:
        yield made


def served(cluster: LabCluster, workload: str) -> None:
    with lossless(cluster, workload, "web", 9002):
        pass


def see(cluster: LabCluster, state: str, *nodes: str, within_s: float = NOTICED_S) -> None:
    for node in nodes or cluster.nodes:
        until(lambda node=node: cluster.store(node) == state, f"{node} sees the store {state}", within_s)  # type: ignore[misc]


@pytest.mark.usefixtures("traffic")
def test_without_etcd_commits_apply_whose_identities_are_known_and_others_wait_for_it(cluster: LabCluster) -> None:
    cluster.kill_etcd()
    see(cluster, "unreachable")
    cluster.write("web.yaml", policy("web", "web", **WEB, egress=[]))
    cluster.converged(cluster.commit())
    cluster.add("new", "gamma", "never-seen-before")
    commit = cluster.commit()
    until(lambda: cluster.status("gamma")["last_error"], "gamma cannot apply it")
    assert "etcd" in cluster.status("gamma")["last_error"]
    cluster.start_etcd()
    see(cluster, "connected")
    cluster.converged(commit)
    cluster.heard()


@pytest.mark.usefixtures("traffic")
def test_a_leader_of_etcd_that_dies_is_not_missed(cluster: LabCluster) -> None:
    cluster.kill_etcd(cluster.leader())
    cluster.add("late", "gamma", "client")
    cluster.converged(cluster.commit())
    cluster.heard()
    served(cluster, "late")


@pytest.mark.usefixtures("traffic")
def test_a_leader_of_etcd_that_hangs_is_passed_over(cluster: LabCluster) -> None:
    leader = cluster.leader()
    cluster.signal_etcd(signal.SIGSTOP, leader)
    try:
        cluster.add("late", "gamma", "client")
        cluster.converged(cluster.commit())
        cluster.heard()
        served(cluster, "late")
    finally:
        cluster.signal_etcd(signal.SIGCONT, leader)


@pytest.mark.usefixtures("traffic")
def test_an_etcd_that_hangs_is_noticed_and_found_again(cluster: LabCluster) -> None:
    cluster.signal_etcd(signal.SIGSTOP)
    try:
        see(cluster, "unreachable")
    finally:
        cluster.signal_etcd(signal.SIGCONT)
    see(cluster, "connected")
    cluster.add("late", "gamma", "client")
    cluster.converged(cluster.commit())
    cluster.heard()


@pytest.mark.usefixtures("traffic")
def test_a_host_that_was_cut_off_while_etcd_was_compacted_catches_up(cluster: LabCluster) -> None:
    """By what its connection had under way when it was cut, or, where that is lost, by reading everything again."""
    with cluster.cut_off_from_etcd("beta"):
        see(cluster, "unreachable", "beta")
        cluster.add("spare", "gamma", "stranger")
        cluster.add("late", "gamma", "client")
        cluster.converged(cluster.commit())
        cluster.heard("alpha", "gamma")
        cluster.compact()
        assert cluster.store("beta") == "unreachable"
    see(cluster, "connected", "beta")
    cluster.heard("beta")
    served(cluster, "late")
    with stopped(cluster, "spare", "web", 9002):
        pass


def test_an_etcd_that_lost_everything_is_told_everything_again(cluster: LabCluster) -> None:
    before = {workload: (cluster.identity(workload), cluster.addresses(workload)) for workload in cluster.where}
    seen = {node: read_again(cluster, node) for node in cluster.nodes}
    with flow(cluster, "stranger", PORTS[1]) as forbidden:
        cluster.kill_etcd()
        cluster.wipe_etcd()
        cluster.start_etcd()
        for node in cluster.nodes:
            until(lambda node=node: read_again(cluster, node) > seen[node], f"{node} reads it again")  # type: ignore[misc]
        cluster.heard()
        assert {one: (cluster.identity(one), cluster.addresses(one)) for one in cluster.where} == before
        served(cluster, "client")
        forbidden.more(50)
    assert forbidden.arrived == 0


def test_a_connection_survives_a_cut_between_its_hosts_and_others_notice_nothing(cluster: LabCluster) -> None:
    with echo_server(cluster.inside("web"), 9003), connected(cluster, "client", 9003) as one:
        assert echoes(one)
        with flow(cluster, "spare", PORTS[0]) as allowed, flow(cluster, "stranger", PORTS[1]) as forbidden:
            with cluster.cut("alpha", "beta"):
                assert not echoes(one)
                until(lambda: cluster.node("beta") in unreachable(cluster, "alpha"), "alpha says that beta is away")
                assert cluster.node("gamma") not in unreachable(cluster, "alpha")
            one.settimeout(DEADLINE_S)
            assert one.recv(16) == b"plumb\n", "what was sent meanwhile comes back"
            assert echoes(one)
            until(lambda: not unreachable(cluster, "alpha"), "alpha says that beta is back")
        assert (allowed.lost, forbidden.arrived) == (0, 0)
        assert allowed.sent


@pytest.mark.usefixtures("traffic")
def test_a_daemon_that_was_away_knows_what_changed_elsewhere(cluster: LabCluster) -> None:
    gone = cluster.addresses("spare")
    cluster.kill("beta")
    for number in range(3):
        cluster.add(f"late-{number}", "gamma", "client")
        cluster.converged(cluster.commit(), "alpha", "gamma")
    cluster.drop("spare")
    cluster.converged(cluster.commit(), "alpha", "gamma")
    cluster.up()
    cluster.heard("beta")
    assert cluster.known("beta").keys().isdisjoint(gone)
    served(cluster, "late-1")


def read_again(cluster: LabCluster, node: str) -> int:
    """How often the node has missed changes of the store."""
    return cluster.log(node).count("reading everything again")


def unreachable(cluster: LabCluster, node: str) -> list[str]:
    return [one["node"] for one in cluster.status(node)["health"]["unreachable"]]


@contextmanager
def connected(cluster: LabCluster, workload: str, port: int) -> Iterator[socket.socket]:
    """A TCP connection to web."""
    with netns.inside(cluster.inside(workload)):
        made = socket.create_connection((cluster.addresses("web")[0], port), 5)
    with made:
        yield made
