"""Each node has an endpoint of our own, and the others probe it over the whole way of a workload's packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.host.health_netns import health_netns
from reconciler.kernel import netns
from reconciler.model.identity import Reserved
from tests.e2e.across import pings
from tests.e2e.daemon_host import until
from tests.e2e.followers import Follower, Followers, followers

pytestmark = pytest.mark.root

MODES = {"vxlan": {"mode": "vxlan"}, "geneve": {"mode": "geneve"}, "native": {"mode": "native", "directRoutes": True}}


@pytest.fixture(scope="module", params=sorted(MODES))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followers]:
    """Two hosts whose workloads are all isolated."""
    spec = {"network": MODES[request.param], "policy": {"enforcement": "always"}}
    with followers(tmp_path_factory.mktemp("health"), spec=spec, alpha={}, beta={}) as made:
        yield made


def address(host: Follower) -> str:
    """Of the host's health endpoint."""
    shown = host.client.get("/v1/endpoints")
    (own,) = [one for one in shown if one["workload"] == f"reserved:health/{host.node}" and one["device"]]
    assert own["identity"] == Reserved.HEALTH
    return str(own["addresses"][0])


def workload_path(host: Follower) -> dict[str, Any]:
    (found,) = [one for one in host.client.get("/v1/health") if one["path"] == "workload"]
    return dict(found)


def test_a_node_is_probed_at_its_health_endpoint(cluster: Followers) -> None:
    alpha, beta = cluster.hosts.values()
    there = address(beta)
    until(lambda: workload_path(alpha)["address"] == there, "alpha has heard of beta's endpoint")
    until(lambda: workload_path(alpha)["reachable"], f"beta answers:\n{alpha.log()}")


def test_the_endpoint_reaches_nobody_and_workloads_do_not_reach_it(cluster: Followers) -> None:
    alpha, beta = cluster.hosts.values()
    assert not pings(health_netns(alpha.config.pin_root), address(beta), "-W1")
    assert not pings(alpha.workload, address(alpha), "-W1")
    assert pings(alpha.path, address(alpha))


def test_a_namespace_that_somebody_removed_comes_back(cluster: Followers) -> None:
    alpha, beta = cluster.hosts.values()
    netns.remove(health_netns(beta.config.pin_root))
    until(lambda: not netns.is_missing(health_netns(beta.config.pin_root)), f"it is there again:\n{beta.log()}")
    until(lambda: pings(alpha.path, address(beta)), f"it answers again:\n{beta.log()}")
