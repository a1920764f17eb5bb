"""Two clusters with stores of their own are one flat network, and policies tell their workloads apart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.model.identity import Reserved
from tests.e2e.across import pings
from tests.e2e.daemon_host import document, until
from tests.e2e.joined_hosts import Joined, joined, learns

pytestmark = pytest.mark.root


def from_cluster(name: str, cluster: str) -> str:
    """web's rule: who comes from that cluster may."""
    peer = {"matchLabels": {"io.cilium.k8s.policy.cluster": cluster}}
    spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"app": name}}, "ingress": [{"fromEndpoints": [peer]}]}
    text = document("CiliumNetworkPolicy", "by-cluster", spec).replace("plumbline/v1", "cilium.io/v2")
    return text.replace('"metadata": {', '"metadata": {"namespace": "default", ')


@pytest.fixture
def east_and_west(tmp_path: Path) -> Iterator[tuple[Joined, Joined]]:
    """A host of each: alpha with `client` in the east, beta with `web` in the west, on one wire."""
    (tmp_path / "east").mkdir()
    (tmp_path / "west").mkdir()
    network = {"store": {"kind": "etcd", "ttl": 2}, "network": {"mode": "vxlan"}}
    with (
        joined(tmp_path / "east", "alpha", cluster={"id": 1, **network}) as east,
        joined(tmp_path / "west", "beta", cluster={"id": 2, **network}, name="west", beside=east) as west,
    ):
        for here, name, other in ((east, "demo", west), (west, "west", east)):
            store = {"kind": "etcd", "endpoints": [other.etcd.endpoint]}
            theirs = {"name": other.name, "id": other.cluster["id"], "store": store}
            here.first.write("cluster.yaml", document("Cluster", name, {**here.cluster, "clusters": [theirs]}))
        east["alpha"].add("client")
        west["beta"].add("web")
        for one in (east, west):
            one.first.commit()
            one.start()
        for one in (east, west):
            one.commit()
        yield east, west


def test_workloads_of_another_cluster_are_known_and_policy_selects_them_by_it(
    east_and_west: tuple[Joined, Joined],
) -> None:
    east, west = east_and_west
    alpha, beta = east["alpha"], west["beta"]
    client, web = alpha.endpoint("client"), beta.endpoint("web")
    assert (client["identity"] >> 16, web["identity"] >> 16) == (1, 2)
    learns(alpha, web["addresses"][0], web["identity"])
    learns(beta, client["addresses"][0], client["identity"])
    until(lambda: pings(alpha.inside("client"), web["addresses"][0]), "the client reaches web in the other cluster")
    west.first.write("policy.yaml", from_cluster("web", "west"))
    west.commit()
    assert not pings(alpha.inside("client"), web["addresses"][0], "-W1")
    west.first.write("policy.yaml", from_cluster("web", "demo"))
    west.commit()
    until(lambda: pings(alpha.inside("client"), web["addresses"][0]), "the client may again")
    assert [one["state"] for one in alpha.store()["clusters"]] == ["connected"]


def test_what_a_node_of_the_other_cluster_does_stops_nothing_here(east_and_west: tuple[Joined, Joined]) -> None:
    """It dies, which its lease tells after two seconds; then it is back with an address of another family only."""
    east, west = east_and_west
    alpha, beta = east["alpha"], west["beta"]
    web = beta.endpoint("web")
    learns(alpha, web["addresses"][0], web["identity"])
    beta.stop(signal.SIGKILL)
    learns(alpha, web["addresses"][0], None)
    assert alpha.known()["10.46.2.0/24"] == Reserved.UNMANAGED
    beta.ip("address", "add", "fd98::2/64", "dev", "up0", "nodad")
    west.first.write("nodes/beta.yaml", beta.manifest(addresses=["fd98::2"]))
    west.first.commit()
    beta.start()
    learns(alpha, web["addresses"][0], web["identity"])
    alpha.add("new")
    east.commit()
    alpha.settle()
    assert "10.46.2.0/24" not in {row["key"] for row in alpha.client.get("/v1/tables/tunnels")}
    assert "node west/beta is left out" in alpha.log()
