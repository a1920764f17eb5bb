"""What looks as if another node brought it to a backend: only nodes are believed, and only about services.

A client's address in such a packet could be anybody's, so whoever is believed could borrow it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from reconciler.observe.flow import Reason
from tests.datapath import packets
from tests.datapath.brought import PORT as GENEVE_PORT
from tests.datapath.brought import in_geneve, in_ipip, with_option
from tests.e2e.across import listening, opened
from tests.e2e.client_outside import CLIENT, LOAD_BALANCER, PORT, host
from tests.e2e.direct_hosts import WAYS, Way, direct_hosts, put
from tests.e2e.hosts import STRANGER, Hosts
from tests.e2e.test_overlay_attacks import refused

pytestmark = pytest.mark.root
WRAPPED = [name for name, one in WAYS.items() if one.direct_return != "option"]
BY_GENEVE = [name for name, one in WAYS.items() if one.direct_return == "geneve"]
NOBODYS = {4: "203.0.113.80", 6: "2001:db8:9::80"}  # is no service's


@pytest.fixture(scope="module", params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(scope="module")
def hosts(way: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The second one has the backend."""
    with direct_hosts(tmp_path_factory.mktemp("hosts"), way) as found:
        yield found


@dataclass(frozen=True, slots=True)
class Client:
    """A datagram socket outside, and what is brought to the backend in its name."""

    hosts: Hosts
    way: Way
    version: int
    socket: socket.socket

    @property
    def front(self) -> tuple[str, int]:
        return LOAD_BALANCER[self.version], 80

    @property
    def backend(self) -> tuple[str, int]:
        return self.hosts.address("b2", self.version), PORT

    def brought(self, node: str, front: tuple[str, int]) -> bytes:
        """The frame by which this node brings a datagram that the client sent to `front`."""
        client, target = self.socket.getsockname()[:2], self.backend[0]
        if self.way.direct_return == "ipip":
            return in_ipip(node, target, packets.udp(*client, *front), PORT)
        packet = packets.udp(*client, *self.backend)
        if self.way.direct_return == "option":
            return with_option(packet, front)
        return in_geneve(node, target if self.is_routed else self.node(2), packet, front)

    @property
    def is_routed(self) -> bool:
        return "mode" not in self.way.network

    def node(self, number: int) -> str:
        """The host's address, of the family of the outer packet."""
        return host(self.hosts, number, self.version if self.is_routed else 4)

    def heard(self) -> bytes | None:
        """What has come, if anything has."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1 << 16)
        except BlockingIOError:
            return None


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def client(request: pytest.FixtureRequest, hosts: Hosts, way: Way) -> Iterator[Client]:
    version: int = request.param
    with opened(hosts.space("wire"), CLIENT[version], socket.SOCK_DGRAM) as made:
        made.bind((CLIENT[version], 0))
        yield Client(hosts, way, version, made)


def test_what_a_node_brings_is_answered_in_the_services_name(hosts: Hosts, client: Client) -> None:
    """The attacks below differ from this in one thing each."""
    put(hosts, ("h1", "eth0"), "h2", client.brought(client.node(1), client.front))
    data, peer = client.socket.recvfrom(1 << 16)
    assert (data, peer[:2]) == (f"b2 {CLIENT[client.version]} x".encode(), client.front)


@pytest.mark.parametrize("way", WRAPPED, indirect=True)
def test_a_stranger_is_not_believed(hosts: Hosts, client: Client) -> None:
    frame = client.brought(client.node(STRANGER), client.front)
    assert refused(hosts, Reason.TUNNEL_NODE, lambda: put(hosts, ("wire", "br0"), "h2", frame))
    assert client.heard() is None


def test_nobody_answers_in_the_name_of_what_is_no_service(hosts: Hosts, client: Client) -> None:
    frame = client.brought(client.node(1), (NOBODYS[client.version], 80))
    assert refused(hosts, Reason.NO_FRONTEND, lambda: put(hosts, ("h1", "eth0"), "h2", frame))
    assert client.heard() is None


@pytest.mark.parametrize("way", BY_GENEVE, indirect=True)
def test_a_workload_does_not_play_the_node_that_it_is_on(hosts: Hosts, client: Client) -> None:
    """It would leave with that node's address, and could borrow any client's."""
    node = host(hosts, 2, 4)
    headers = 14 + (40 if ":" in client.node(1) else 20) + 8
    payload = client.brought(client.node(1), client.front)[headers:]
    with opened(hosts.space("a1"), node, socket.SOCK_DGRAM) as workload:
        assert refused(hosts, Reason.TUNNEL_FORBIDDEN, lambda: workload.sendto(payload, (node, GENEVE_PORT)), number=1)
    assert client.heard() is None


@pytest.mark.parametrize("version", [4, 6])
def test_the_port_is_not_special_between_workloads(hosts: Hosts, version: int) -> None:
    address = hosts.address("a2", version)
    with (
        listening(hosts.space("a2"), address, socket.SOCK_DGRAM, GENEVE_PORT) as server,
        opened(hosts.space("a1"), address, socket.SOCK_DGRAM) as workload,
    ):
        workload.sendto(b"word", (address, GENEVE_PORT))
        assert server.recv(8) == b"word"
