"""Hosts of one cluster hear of each other through the store: nodes, endpoints and identities, live and dead."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.identity import Reserved
from tests.e2e.across import pings
from tests.e2e.daemon_host import allowing, policy, until
from tests.e2e.joined_hosts import Joined, JoinedHost, joined, learns

pytestmark = pytest.mark.root

TTL_S = 2


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Joined]:
    """alpha and beta, with a workload each, on etcd."""
    cluster = {"store": {"kind": "etcd", "ttl": TTL_S}, "network": {"mode": "vxlan"}}
    with joined(tmp_path, "alpha", "beta", cluster=cluster) as hosts:
        hosts["alpha"].add("client")
        hosts["beta"].add("web")
        hosts.first.commit()
        hosts.start()
        hosts.commit()
        yield hosts


def test_an_endpoint_is_known_elsewhere_by_what_its_host_announced(two: Joined) -> None:
    (web4, web6), identity = two["beta"].addresses("web"), two["beta"].endpoint("web")["identity"]
    learns(two["alpha"], web4, identity)
    learns(two["alpha"], web6, identity)
    until(lambda: pings(two["alpha"].inside("client"), web4), "the client reaches web")
    until(lambda: pings(two["alpha"].inside("client"), web6), "the client reaches web by IPv6")


def test_a_workload_that_comes_or_goes_later_does_so_everywhere(two: Joined) -> None:
    two["beta"].add("db")
    two.commit()
    db4 = two["beta"].addresses("db")[0]
    learns(two["alpha"], db4, two["beta"].endpoint("db")["identity"])
    (two.tree / "workloads/db.yaml").unlink()
    two.commit()
    learns(two["alpha"], db4, None)


def test_a_host_that_dies_is_forgotten_with_its_lease_and_never_becomes_the_world(two: Joined) -> None:
    web4 = two["beta"].addresses("web")[0]
    two["beta"].stop(signal.SIGKILL)
    learns(two["alpha"], web4, None)
    assert two["alpha"].known()["10.46.2.0/24"] == Reserved.UNMANAGED


def test_a_host_that_is_restarted_in_time_is_never_forgotten(two: Joined) -> None:
    web4, identity = two["beta"].addresses("web")[0], two["beta"].endpoint("web")["identity"]
    learns(two["alpha"], web4, identity)
    two["beta"].stop()
    assert two["alpha"].known()[web4] == identity
    two["beta"].start()
    two["beta"].wait_for(two.first.git("rev-parse", "HEAD"))
    two["beta"].settle()
    assert two["alpha"].known()[web4] == identity


def test_without_the_store_a_host_keeps_what_it_knows_and_says_so(two: Joined) -> None:
    web4, identity = two["beta"].addresses("web")[0], two["beta"].endpoint("web")["identity"]
    learns(two["alpha"], web4, identity)
    two.etcd.kill()
    until(lambda: two["alpha"].store()["state"] == "unreachable", "alpha says that the store is away")
    assert "refused" in two["alpha"].store()["reason"]
    assert "unreachable since" in two["alpha"].plumb("status").stdout
    assert two["alpha"].known()[web4] == identity
    two.etcd.again()
    until(lambda: two["alpha"].store()["state"] == "connected", "alpha has the store again")


def test_a_commit_that_needs_nothing_new_is_applied_without_the_store_and_another_one_later(two: Joined) -> None:
    two.etcd.kill()
    two.first.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", 80)]))
    two.commit()
    two["beta"].add("late")
    late = two.first.commit()
    assert two["beta"].outcome(late)["result"] == "failed"
    assert "cannot be reached" in two["beta"].status()["last_error"]
    two.etcd.again()
    two["beta"].wait_for(late)
    learns(two["alpha"], two["beta"].addresses("late")[0], two["beta"].endpoint("late")["identity"])


def test_a_daemon_that_starts_without_the_store_goes_by_what_it_heard_last(two: Joined) -> None:
    web4, identity = two["beta"].addresses("web")[0], two["beta"].endpoint("web")["identity"]
    learns(two["alpha"], web4, identity)
    two["alpha"].stop()
    two.etcd.kill()
    two["alpha"].start()
    until(lambda: two["alpha"].status()["state"] == "converged", "alpha is converged")
    assert two["alpha"].known()[web4] == identity
    two.etcd.again()
    until(lambda: two["alpha"].store()["state"] == "connected", "alpha has the store")
    two["alpha"].settle()
    assert two["alpha"].known()[web4] == identity


def test_a_second_host_of_one_name_is_refused_by_the_address_of_the_first(two: Joined) -> None:
    second = JoinedHost(two.directory / "second", two.tree, "beta", 3)
    second.directory.mkdir()
    two.hosts["second"] = second
    two.connect(second)
    second.configure()
    second.start()
    until(lambda: second.status()["last_error"], "the second beta is refused")
    assert f"node beta is another host, at {two['beta'].address}, since " in second.status()["last_error"]
    assert second.status()["endpoints"] == 0


def test_the_name_of_a_host_that_died_can_be_made_free_at_once(two: Joined) -> None:
    two["beta"].stop(signal.SIGKILL)
    assert "beta is forgotten" in two["alpha"].plumb("node", "forget", "beta").stdout
    listed = json.loads(two["alpha"].plumb("node", "list", "-o", "json").stdout)
    assert {one["node"]: one["state"] for one in listed} == {"alpha": "here", "beta": "silent"}


def test_a_host_that_is_forgotten_and_alive_says_it_all_again(two: Joined) -> None:
    web4, identity = two["beta"].addresses("web")[0], two["beta"].endpoint("web")["identity"]
    two["alpha"].plumb("node", "forget", "beta")
    learns(two["alpha"], web4, identity)
    listed = json.loads(two["alpha"].plumb("endpoint", "list", "--all", "-o", "json").stdout)
    told = {"default/web": identity, "reserved:health/beta": Reserved.HEALTH}
    assert {one["workload"]: one["identity"] for one in listed if one["node"] == "beta"} == told


def test_nodes_without_cidrs_get_them_from_the_pool(tmp_path: Path) -> None:
    pools = [{"cidr": "10.46.0.0/16", "nodePrefix": 24}, {"cidr": "fd46::/96", "nodePrefix": 112}]
    cluster = {"store": {"kind": "etcd", "ttl": TTL_S}, "network": {"mode": "vxlan"}, "pools": pools}
    with joined(tmp_path, "alpha", "beta", cluster=cluster, cidrs=False) as hosts:
        hosts["alpha"].add("client")
        hosts["beta"].add("web")
        hosts.first.commit()
        hosts.start()
        hosts.commit()
        client4, web4 = (hosts[node].addresses(name)[0] for node, name in (("alpha", "client"), ("beta", "web")))
        assert client4.rpartition(".")[0] != web4.rpartition(".")[0]
        until(lambda: pings(hosts["alpha"].inside("client"), web4), "the client reaches web")


def test_a_node_that_was_removed_gives_its_cidr_back(tmp_path: Path) -> None:
    pools = [{"cidr": "10.46.0.0/24", "nodePrefix": 25}]
    cluster = {"store": {"kind": "etcd", "ttl": TTL_S}, "network": {"mode": "vxlan"}, "pools": pools}
    with joined(tmp_path, "alpha", "beta", cluster=cluster, cidrs=False) as hosts:
        alpha = hosts["alpha"]
        hosts.first.commit()
        hosts.start()
        hosts.commit()
        hosts["beta"].stop()
        (hosts.tree / "nodes/beta.yaml").unlink()
        hosts.commit()
        until(lambda: "beta" not in {one["node"] for one in alpha.client.get("/v1/nodes")}, "beta's lease has ended")
        assert "beta is forgotten" in alpha.plumb("node", "forget", "beta").stdout
        with hosts.etcd.client() as client:
            keys = [found.key.decode() for _, found in client.get_prefix("/plumbline/v1/demo")]
        assert [key for key in keys if "beta" in key] == []
