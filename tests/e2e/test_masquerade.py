"""Workloads talk to an outside that knows only their host: real packets, both families."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from reconciler.lab.underlay import run_ip
from tests.e2e.outside import HOST, KNOWN, OUTSIDE, Edge, made_edge

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
FIRST_PORT = 49152


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with made_edge(tmp_path_factory.mktemp("edge")) as made:
        made.become(masquerade={"enabled": True, "exclude": [f"{KNOWN[4]}/32", f"{KNOWN[6]}/128"]})
        yield made


@families
def test_the_outside_sees_the_host_and_its_answer_finds_the_workload(edge: Edge, version: int) -> None:
    seen = edge.reaches("client", "outside", OUTSIDE[version], 80)
    assert seen is not None
    assert seen[0] == HOST[version]
    assert seen[1] >= FIRST_PORT


@families
def test_two_workloads_on_one_port_get_two_ports_and_each_its_own_answer(edge: Edge, version: int) -> None:
    with (
        edge.socket("outside", version, socket.SOCK_DGRAM, 5000) as server,
        edge.socket("web", version, socket.SOCK_DGRAM, 50000) as web,
        edge.socket("client", version, socket.SOCK_DGRAM, 50000) as client,
    ):
        for sender, text in ((web, b"web"), (client, b"client")):
            sender.sendto(text, (OUTSIDE[version], 5000))
        asked = dict(server.recvfrom(16) for _ in range(2))
        for text, where in asked.items():
            server.sendto(text, where)
        assert (web.recv(16), client.recv(16)) == (b"web", b"client")
    assert {where[0] for where in asked.values()} == {HOST[version]}
    assert len({where[1] for where in asked.values()}) == 2
    assert 50000 in {where[1] for where in asked.values()}  # the first one keeps what it has


@families
def test_an_echo_comes_back_also_in_fragments(edge: Edge, version: int) -> None:
    assert edge.ping("client", OUTSIDE[version])
    assert edge.ping("client", OUTSIDE[version], size=4000)


@families
def test_a_datagram_in_fragments_goes_there_and_back(edge: Edge, version: int) -> None:
    text = bytes(range(256)) * 16
    with (
        edge.socket("outside", version, socket.SOCK_DGRAM, 5001) as server,
        edge.socket("client", version, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(text, (OUTSIDE[version], 5001))
        found, where = server.recvfrom(8192)
        server.sendto(found, where)
        assert client.recv(8192) == text
        assert where[0] == HOST[version]


@families
def test_an_error_from_outside_reaches_the_workload_whose_flow_it_is_about(edge: Edge, version: int) -> None:
    with edge.socket("client", version, socket.SOCK_DGRAM) as client:
        client.connect((OUTSIDE[version], 5002))  # nobody listens there
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(16)


@families
def test_an_error_of_a_workload_reaches_the_outside_under_the_hosts_name(edge: Edge, version: int) -> None:
    with edge.socket("outside", version, socket.SOCK_DGRAM, 5003) as server:
        with edge.socket("client", version, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (OUTSIDE[version], 5003))
            _, where = server.recvfrom(16)
        server.connect(where)  # the client's socket is closed by now
        server.send(b"late")
        with pytest.raises(ConnectionRefusedError):
            server.recv(16)


@families
def test_who_is_excluded_sees_the_workload_itself(edge: Edge, version: int) -> None:
    with edge.way_back(version):
        seen = edge.reaches("client", "outside", KNOWN[version], 80)
    assert seen is not None
    assert seen[0] == edge.address("client", version)


@families
def test_who_came_in_without_a_translation_is_answered_without_one(edge: Edge, version: int) -> None:
    with edge.way_back(version):
        assert edge.reaches("outside", "web", edge.address("web", version), 81, source=OUTSIDE[version])


@families
def test_the_hosts_own_connections_keep_address_and_port(edge: Edge, version: int) -> None:
    with (
        edge.socket("outside", version, socket.SOCK_DGRAM, 5004) as server,
        edge.socket("client", version, socket.SOCK_DGRAM, 51000) as client,
        edge.socket("host", version, socket.SOCK_DGRAM) as host,
    ):
        client.sendto(b"client", (OUTSIDE[version], 5004))
        assert server.recvfrom(16)[1][1] == 51000
        with edge.socket("host", version, socket.SOCK_DGRAM, 51000) as taken:  # a port of the range, all the same
            taken.sendto(b"host", (OUTSIDE[version], 5004))
            _, where = server.recvfrom(16)
            assert where[1] == 51000
            server.sendto(b"for the host", where)
            assert taken.recv(16) == b"for the host"
            client.sendto(b"client", (OUTSIDE[version], 5004))
            _, where = server.recvfrom(16)
            assert where[1] != 51000
            server.sendto(b"for the client", where)
            assert client.recv(16) == b"for the client"
        host.sendto(b"x", (OUTSIDE[version], 5004))
        assert server.recvfrom(16)[1][1] < FIRST_PORT


def test_another_address_of_the_device_is_taken_up_and_the_old_one_again(edge: Edge) -> None:
    for old, new in ((HOST[4], "192.0.2.2"), ("192.0.2.2", HOST[4])):
        way = "route replace default via 192.0.2.9"
        run_ip(edge.made.path, [f"address del {old}/24 dev eth0", f"address add {new}/24 dev eth0", way])
        plan = edge.host.drift({"addresses"})
        assert plan is not None
        edge.host.repair(plan)
        seen = edge.reaches("client", "outside", OUTSIDE[4], 80)
        assert seen is not None
        assert seen[0] == new


def test_a_row_of_the_device_that_somebody_takes_away_comes_back(edge: Edge) -> None:
    table = edge.host.tables["devices"]
    table.write({}, ["eth0"])  # type: ignore[arg-type]
    plan = edge.host.drift({"devices"})
    assert plan is not None
    edge.host.repair(plan)
    assert edge.ping("client", OUTSIDE[4])
