"""Workloads of two hosts across an overlay, with real packets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.across import answers, bulk, pings, sniffed
from tests.e2e.hosts import Hosts, made_hosts

pytestmark = pytest.mark.root


PORTS = {"vxlan": 8472, "geneve": 6081}
OVERLAYS = [(mode, family) for mode in PORTS for family in ("ipv4", "ipv6")]


@pytest.fixture(scope="module", params=OVERLAYS, ids="-".join)
def overlay(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Mode, and family of the outer packets."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def hosts(overlay: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    mode, family = overlay
    with made_hosts(tmp_path_factory.mktemp("hosts"), network={"mode": mode, "underlay": family}) as found:
        yield found


@pytest.fixture
def port(overlay: tuple[str, str]) -> int:
    return PORTS[overlay[0]]


@pytest.mark.parametrize("version", [4, 6])
def test_a_workload_reaches_one_of_another_host(hosts: Hosts, version: int) -> None:
    assert pings(hosts.space("a1"), hosts.address("a2", version))


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_reaches_a_workload_of_another_host(hosts: Hosts, version: int) -> None:
    assert pings(hosts.space("h1"), hosts.address("b2", version))


@pytest.mark.parametrize("version", [4, 6])
def test_bulk_arrives_as_it_was_sent(hosts: Hosts, version: int) -> None:
    sent, received = bulk(hosts.space("a1"), hosts.space("a2"), hosts.address("a2", version))
    assert received == sent


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_larger_than_the_tunnel_arrives_in_fragments(hosts: Hosts, version: int) -> None:
    assert answers(hosts.space("a1"), hosts.space("b2"), hosts.address("b2", version), 4000)


def test_on_the_wire_the_vni_is_the_identity_of_the_sender(hosts: Hosts, port: int) -> None:
    with hosts.host(1) as host:
        known = {row["workload"]: row["identity"] for row in host.listing().endpoints()}
    with sniffed(hosts.space("h2"), "eth0", port) as seen:
        assert pings(hosts.space("a1"), hosts.address("a2"))
        assert pings(hosts.space("b1"), hosts.address("a2"))
    sources = {(packet.source, packet.vni) for packet in seen() if packet.destination == hosts.address("a2")}
    assert sources == {
        (hosts.address("a1"), known["default/a1"]),
        (hosts.address("b1"), known["default/b1"]),
    }


def test_what_a_host_sends_itself_is_told_as_a_remote_node(hosts: Hosts, port: int) -> None:
    with sniffed(hosts.space("h2"), "eth0", port) as seen:
        assert pings(hosts.space("h1"), hosts.address("a2"))
    assert {packet.vni for packet in seen() if packet.destination == hosts.address("a2")} == {6}
