"""Services from outside, with real packets: a client on the segment of two hosts, backends on both.

Not every kernel has sockets for SCTP, so its packets are put together here; whoever has a raw socket gets them.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from reconciler.kernel import netns
from tests.datapath.packets import SCTP, association
from tests.e2e.across import DEADLINE_S, listening, opened, sniffed
from tests.e2e.daemon_host import policy, until
from tests.e2e.hosts import STRANGER, Hosts, made_hosts

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
MODES = {"routes": {"directRoutes": True}, "vxlan": {"mode": "vxlan"}, "geneve": {"mode": "geneve"}}
BACKENDS = ("a1", "a2", "b2")
PORT = 8080
LOAD_BALANCER = {4: "192.0.2.80", 6: "2001:db8:2::80"}
CLIENT = {4: f"10.98.0.{STRANGER}", 6: f"fd98::{STRANGER}"}
HOST_AMONG_WORKLOADS = {4: "10.47.1.1", 6: "fd47:1::1"}
DOUBLE = "ipFamilyPolicy: RequireDualStack"
SERVICES = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  {DOUBLE}
  selector: {{app: a}}
  ports:
    - {{name: tcp, port: 80, targetPort: {PORT}, nodePort: 30080}}
    - {{name: udp, port: 80, protocol: UDP, targetPort: {PORT}, nodePort: 30080}}
    - {{name: sctp, port: 80, protocol: SCTP, targetPort: {PORT}, nodePort: 30080}}
---
apiVersion: v1
kind: Service
metadata: {{name: local}}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  {DOUBLE}
  selector: {{app: b}}
  ports: [{{port: 80, targetPort: {PORT}, nodePort: 30081}}]
---
apiVersion: v1
kind: Service
metadata: {{name: limited}}
spec:
  type: LoadBalancer
  {DOUBLE}
  externalIPs: ["{LOAD_BALANCER[4]}", "{LOAD_BALANCER[6]}"]
  loadBalancerSourceRanges: [RANGES]
  selector: {{app: a}}
  ports: [{{port: 80, targetPort: {PORT}, nodePort: 30082}}]
"""
ADMITTED = SERVICES.replace("RANGES", f'{CLIENT[4]}/32, "{CLIENT[6]}/128"')


class Servers:
    """Every backend says who it is and whom it sees, over TCP, UDP and SCTP, and then what it is told."""

    def __init__(self, hosts: Hosts, stack: ExitStack) -> None:
        for name in BACKENDS:
            for version in (4, 6):
                where = hosts.space(name), hosts.address(name, version)
                stream = stack.enter_context(listening(*where, socket.SOCK_STREAM, PORT))
                datagram = stack.enter_context(listening(*where, socket.SOCK_DGRAM, PORT))
                raw = stack.enter_context(associated(*where))
                for serve, server in ((self._accept, stream), (self._answer, datagram), (self._associate, raw)):
                    server.settimeout(None)
                    stack.callback(_shut, server)
                    threading.Thread(target=serve, args=(name, server), daemon=True).start()

    def _accept(self, name: str, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, peer = server.accept()
                threading.Thread(target=_talk, args=(name, connection, peer[0]), daemon=True).start()

    def _answer(self, name: str, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                data, peer = server.recvfrom(1 << 16)
                if not data:
                    return
                server.sendto(f"{name} {peer[0]} ".encode() + data, peer)

    def _associate(self, name: str, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                packet, peer = server.recvfrom(1 << 16)
                if not packet:
                    return
                if (heard := understood(packet)) and heard[1] == PORT:
                    server.sendto(association(PORT, heard[0], f"{name} {peer[0]}".encode()), peer)


def _shut(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


def _talk(name: str, connection: socket.socket, peer: str) -> None:
    with suppress(OSError), connection:
        connection.settimeout(DEADLINE_S)
        connection.sendall(f"{name} {peer}\n".encode())
        while data := connection.recv(1 << 16):
            connection.sendall(data)


@pytest.fixture(scope="module", params=MODES, ids=str)
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    settings = {"network": MODES[request.param], "services": {"cidrs": ["10.96.0.0/24", "fd96::/112"]}}
    with made_hosts(tmp_path_factory.mktemp("hosts"), **settings) as found, ExitStack() as stack:
        found.write("services.yaml", ADMITTED)
        found.converge()
        for version in (4, 6):
            way = f"{LOAD_BALANCER[version]}/{32 if version == 4 else 128} via {found.underlay(1)[version == 6]}"
            found.ip("wire", *f"-{version} route add {way}".split())
        Servers(found, stack)
        tentative = ["-6", "address", "show", "dev", "br0", "tentative"]
        until(lambda: not found.ip("wire", *tentative), "the client may use its IPv6 address")
        yield found


def asks(hosts: Hosts, address: str, port: int) -> tuple[str, str]:
    """Who answers the client over TCP, and whom that one sees; after some words there and back."""
    with opened(hosts.space("wire"), address, socket.SOCK_STREAM) as client:
        client.connect((address, port))
        with client.makefile("rwb") as stream:
            name, seen = stream.readline().decode().split()
            words = bytes(100_000)
            threading.Thread(target=lambda: (stream.write(words), stream.flush())).start()
            assert stream.read(len(words)) == words
        return name, seen


def sends(hosts: Hosts, address: str, port: int, size: int) -> tuple[str, str]:
    """The same with a datagram; sent again if the client is told that the way to the backend carries less."""
    with opened(hosts.space("wire"), address, socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.send(bytes(size))
        try:
            answer = client.recv(1 << 16)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            client.send(bytes(size))
            answer = client.recv(1 << 16)
        name, seen, data = answer.split(b" ", 2)
        assert data == bytes(size)
        return name.decode(), seen.decode()


def associated(space: str, address: str) -> socket.socket:
    """A socket that gets every SCTP packet for the address."""
    with netns.inside(space):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_RAW, SCTP)
    made.settimeout(DEADLINE_S)
    made.bind((address, 0))
    return made


def understood(packet: bytes) -> tuple[int, int, bytes] | None:
    """Ports and data of what such a socket got, if its checksum is right. IPv4's own header comes along."""
    body = packet[20:] if packet[0] >> 4 == 4 and len(packet) == int.from_bytes(packet[2:4]) else packet
    source, destination = struct.unpack_from("!HH", body)
    return (source, destination, body[12:]) if association(source, destination, body[12:]) == body else None


def host(hosts: Hosts, number: int, version: int) -> str:
    return hosts.underlay(number)[version == 6]


@families
def test_a_node_port_reaches_backends_of_both_hosts_and_answers_in_its_own_name(hosts: Hosts, version: int) -> None:
    found = {asks(hosts, host(hosts, 1, version), 30080) for _ in range(24)}
    assert {name for name, _ in found} == {"a1", "a2"}
    seen = dict(found)
    assert seen["a1"] == CLIENT[version]
    assert seen["a2"] in (host(hosts, 1, version), HOST_AMONG_WORKLOADS[version])


@families
@pytest.mark.parametrize("size", [1, 4000])
def test_datagrams_too_and_in_fragments(hosts: Hosts, version: int, size: int) -> None:
    found = {sends(hosts, host(hosts, 1, version), 30080, size)[0] for _ in range(24)}
    assert found == {"a1", "a2"}


@families
def test_associations_too(hosts: Hosts, version: int) -> None:
    address, found = host(hosts, 1, version), dict[str, str]()
    with associated(hosts.space("wire"), CLIENT[version]) as client:
        for port in range(5000, 5024):
            client.sendto(association(port, 30080, bytes(100)), (address, 0))
            packet, peer = client.recvfrom(1 << 16)
            heard = understood(packet)
            assert heard
            assert (peer[0], heard[:2]) == (address, (30080, port))
            found.update([heard[2].decode().split()])
    assert found.keys() == {"a1", "a2"}
    assert found["a1"] == CLIENT[version]


@families
def test_a_connection_whose_backends_are_gone_is_reset(hosts: Hosts, version: int) -> None:
    with opened(hosts.space("wire"), host(hosts, 1, version), socket.SOCK_STREAM) as client:
        client.connect((host(hosts, 1, version), 30080))
        client.recv(64)
        hosts.write("services.yaml", ADMITTED.replace("selector: {app: a}", "selector: {app: none}"))
        hosts.converge()
        try:
            client.sendall(bytes(10_000))
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        finally:
            hosts.write("services.yaml", ADMITTED)
            hosts.converge()


@families
def test_a_local_service_asks_backends_here_and_they_see_the_client(hosts: Hosts, version: int) -> None:
    found = {asks(hosts, host(hosts, 2, version), 30081) for _ in range(6)}
    assert found == {("b2", CLIENT[version])}


@families
def test_source_ranges_decide_who_is_served(hosts: Hosts, version: int) -> None:
    assert asks(hosts, LOAD_BALANCER[version], 80)[0] in ("a1", "a2")
    other = {4: "10.98.0.98", 6: "fd98::98"}[version]
    with _another_address(hosts, other), opened(hosts.space("wire"), other, socket.SOCK_STREAM) as client:
        client.bind((other, 0))
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.connect((LOAD_BALANCER[version], 80))


@contextmanager
def _another_address(hosts: Hosts, address: str) -> Iterator[None]:
    """While the block runs, the client has it too."""
    where = f"{address}/{64 if ':' in address else 24} dev br0".split()
    hosts.ip("wire", "address", "add", *where, *["nodad"] * (":" in address))
    yield
    hosts.ip("wire", "address", "del", *where)


@families
def test_the_client_never_sees_a_backends_address(hosts: Hosts, version: int) -> None:
    with sniffed(hosts.space("wire"), "br0") as seen:
        for _ in range(8):
            asks(hosts, host(hosts, 1, version), 30080)
    sources = {packet.source for packet in seen() if packet.destination == CLIENT[version]}
    assert host(hosts, 1, version) in sources
    assert not sources & {hosts.address(name, version) for name in BACKENDS}


@families
def test_policy_is_about_the_backend(hosts: Hosts, version: int) -> None:
    closed = policy("closed", "a", ingress=[{"from": [{"ipBlock": {"cidr": f"{CLIENT[4]}/32"}}]}])
    hosts.write("policies/closed.yaml", closed)
    hosts.converge()
    try:
        if version == 4:
            found = set()
            for _ in range(12):
                with suppress(OSError):
                    found.add(_quick(hosts, host(hosts, 1, version)))
            assert found == {"a1"}  # the one of this host sees the client; the other one sees a node
        else:
            with pytest.raises(TimeoutError):
                _quick(hosts, host(hosts, 1, version))
    finally:
        (hosts.tree / "policies/closed.yaml").unlink()
        hosts.converge()


def _quick(hosts: Hosts, address: str) -> str:
    with opened(hosts.space("wire"), address, socket.SOCK_STREAM) as client:
        client.settimeout(0.3)
        client.connect((address, 30080))
        return client.recv(100).decode().split()[0]
