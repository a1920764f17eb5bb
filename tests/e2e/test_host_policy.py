"""Rules for the host itself, between it and the outside, and between it and its own workloads: real connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from reconciler.lab.underlay import run_ip
from reconciler.observe.flow import Reason
from tests.e2e.daemon_host import until
from tests.e2e.outside import HOST, OUTSIDE, Edge, made_edge, ports

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
CLOSED = {"ingress": [ports(22)]}
NOWHERE = {"egress": [ports(53)]}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with made_edge(tmp_path_factory.mktemp("edge")) as made:
        yield made


@pytest.fixture(scope="module")
def open_edge(edge: Edge) -> Edge:
    edge.become(masquerade={"enabled": True})
    return edge


@pytest.fixture(scope="module")
def closed(edge: Edge, open_edge: Edge) -> Edge:
    """Only port 22 of the host is open."""
    edge.become(CLOSED, masquerade={"enabled": True})
    return edge


@families
def test_a_host_that_no_rule_selects_is_open(open_edge: Edge, version: int) -> None:
    assert open_edge.reaches("outside", "host", HOST[version], 80)
    assert open_edge.reaches("client", "host", HOST[version], 80)


@families
def test_it_is_known_how_full_the_tables_of_flows_are(open_edge: Edge, version: int) -> None:
    assert open_edge.reaches("client", "host", HOST[version], 80)
    open_edge.host.collect_flows()
    found = open_edge.host.fullness()[f"conntrack{version}"]
    assert 0 < found.live < found.entries


@families
def test_only_what_a_rule_allows_reaches_the_host_from_outside(closed: Edge, version: int) -> None:
    assert closed.reaches("outside", "host", HOST[version], 22)
    assert not closed.reaches("outside", "host", HOST[version], 80)
    assert not closed.ping("outside", HOST[version])


@pytest.mark.parametrize("place", ["outside", "client"])
def test_the_anycast_address_of_its_routers_is_no_way_around(closed: Edge, place: str) -> None:
    with closed.socket("host", 6, socket.SOCK_DGRAM, 22), closed.socket(place, 6, socket.SOCK_DGRAM) as asker:
        before = drops(closed)
        asker.sendto(b"x", ("2001:db8::", 9999))
        until(lambda: drops(closed) == before + 1, "the packet is denied")


def drops(edge: Edge) -> int:
    counters = edge.host.counters()
    assert counters is not None
    return counters.by_reason[Reason.POLICY_DEFAULT].packets


@pytest.mark.parametrize(
    ("network", "address"), [("198.51.100.128/25", "198.51.100.200"), ("2001:db8:5::/64", "2001:db8:5::7")]
)
def test_nor_is_a_local_route(closed: Edge, network: str, address: str) -> None:
    run_ip(closed.made.path, [f"route add local {network} dev lo"])
    run_ip(closed.outside, [f"route add {network} via {HOST[6 if ':' in network else 4]} dev eth0"])
    try:
        plan = closed.host.drift({"addresses"})
        assert plan
        closed.host.repair(plan)
        assert closed.reaches("outside", "host", address, 22)
        assert not closed.reaches("outside", "host", address, 80)
        assert not closed.reaches("client", "host", address, 80)
    finally:
        run_ip(closed.made.path, [f"route del local {network} dev lo"])
        run_ip(closed.outside, [f"route del {network}"])
    plan = closed.host.drift({"addresses"})
    assert plan
    closed.host.repair(plan)


@families
def test_the_same_holds_for_its_own_workloads(closed: Edge, version: int) -> None:
    assert closed.reaches("client", "host", HOST[version], 22)
    assert not closed.reaches("client", "host", HOST[version], 80)


@families
def test_what_the_host_asks_for_is_answered(closed: Edge, version: int) -> None:
    assert closed.reaches("host", "outside", OUTSIDE[version], 80)
    assert closed.reaches("host", "web", closed.address("web", version), 80)
    assert closed.ping("host", OUTSIDE[version], size=4000)


@families
def test_the_host_reaches_itself_whatever_the_rules(closed: Edge, version: int) -> None:
    assert closed.reaches("host", "host", HOST[version], 80)
    assert closed.reaches("host", "host", {4: "127.0.0.1", 6: "::1"}[version], 80)


@families
def test_workloads_leave_as_before(closed: Edge, version: int) -> None:
    assert closed.reaches("client", "outside", OUTSIDE[version], 80)
    assert closed.reaches("client", "web", closed.address("web", version), 80)


@families
def test_the_host_is_told_of_errors_about_its_own_flows(closed: Edge, version: int) -> None:
    with closed.socket("host", version, socket.SOCK_DGRAM) as host:
        host.connect((OUTSIDE[version], 5002))  # nobody listens there
        host.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            host.recv(16)


@families
def test_a_connection_ends_with_the_rule_that_allowed_it(edge: Edge, version: int) -> None:
    edge.become(CLOSED)
    with edge.socket("host", version, socket.SOCK_STREAM, 22) as server:
        server.listen()
        with edge.socket("outside", version, socket.SOCK_STREAM) as client:
            client.connect((HOST[version], 22))
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(0.3)
                edge.become({"ingress": [ports(23)]})
                client.sendall(b"late")
                with pytest.raises(TimeoutError):
                    accepted.recv(8)
                edge.become(CLOSED)
                accepted.settimeout(5)
                assert accepted.recv(8) == b"late"


@families
def test_the_host_may_be_kept_from_asking(edge: Edge, version: int) -> None:
    edge.become(NOWHERE)
    assert edge.reaches("host", "outside", OUTSIDE[version], 53)
    assert not edge.reaches("host", "outside", OUTSIDE[version], 80)
    assert not edge.reaches("host", "web", edge.address("web", version), 80)
    assert edge.reaches("outside", "host", HOST[version], 80)


def test_a_rule_in_audit_mode_lets_pass(edge: Edge) -> None:
    edge.become({**CLOSED, "audit": True})
    assert edge.reaches("outside", "host", HOST[4], 80)


def test_rules_that_go_leave_nothing_on_the_devices(edge: Edge) -> None:
    edge.become(CLOSED)
    assert any(row["key"]["ifname"] == "eth0" for row in edge.host.listing().rows("attachments"))
    edge.become()
    assert not any(row["key"]["ifname"] == "eth0" for row in edge.host.listing().rows("attachments"))
    assert edge.host.listing().rows("devices") == []
