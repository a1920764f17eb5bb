"""Workloads of two hosts without an overlay: over routes that the hosts keep themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.across import bulk, pings, sniffed
from tests.e2e.daemon_host import cluster, policy
from tests.e2e.hosts import Hosts, made_hosts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts on one segment."""
    with made_hosts(tmp_path_factory.mktemp("hosts"), network={"directRoutes": True}) as found:
        yield found


@pytest.mark.parametrize("version", [4, 6])
def test_packets_travel_as_they_are(hosts: Hosts, version: int) -> None:
    with sniffed(hosts.space("h2"), "eth0") as seen:
        assert pings(hosts.space("a1"), hosts.address("a2", version))
    travelled = (hosts.address("a1", version), hosts.address("a2", version))
    assert travelled in {(packet.source, packet.destination) for packet in seen()}


@pytest.mark.parametrize("version", [4, 6])
def test_bulk_arrives_as_it_was_sent(hosts: Hosts, version: int) -> None:
    sent, received = bulk(hosts.space("a1"), hosts.space("a2"), hosts.address("a2", version))
    assert received == sent


@pytest.mark.parametrize("version", [4, 6])
def test_a_sender_is_known_by_its_address(hosts: Hosts, version: int) -> None:
    hosts.write(
        "policies/a.yaml", policy("a", "a", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]}])
    )
    hosts.converge()
    reached = {name: pings(hosts.space(name), hosts.address("a2", version)) for name in ("a1", "b1")}
    assert reached == {"a1": False, "b1": True}


def test_an_address_that_nobody_has_leads_nowhere(hosts: Hosts) -> None:
    assert "No route to host" in hosts.ip("h2", "route", "get", "10.47.2.200", check=False)


def test_a_host_changes_from_routes_to_an_overlay_and_back(hosts: Hosts) -> None:
    for settings in ({"mode": "vxlan"}, {"directRoutes": True}):
        hosts.write("cluster.yaml", cluster(network=settings))
        hosts.converge()
        assert pings(hosts.space("b1"), hosts.address("b2"))
        assert ("plumb_vxlan" in hosts.ip("h1", "link")) is ("mode" in settings)
