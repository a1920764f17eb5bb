"""Processes of a cgroup that use services: real sockets, and every packet has a backend's address."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.kernel import netns
from reconciler.kernel.cgroups import CgroupsTable, cgroup_mount
from reconciler.model.datapath import AttachmentRow, CgroupKey, SocketHook

from .harness import Allow, Harness
from .packets import UDP
from .services import RANDOM, Services

NAME = f"pt-{os.getpid()}-sock"
HERE = Path(__file__).parent
VIP, VIP6 = "10.96.0.1", "fd96::1"
FAMILIES = {"4": ("AF_INET", VIP, "127.0.0.1"), "6": ("AF_INET6", VIP6, "::1")}


class Client:
    """A process in the cgroup and in the namespace of the calling thread; `ask` evaluates a line there."""

    def __init__(self) -> None:
        procs = cgroup_mount() / NAME / "cgroup.procs"
        command = f"echo $$ > {procs} && exec {sys.executable} {HERE / 'asking.py'}"
        self._process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line: str) -> Any:
        """The value. Raises OSError as it was raised there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        answer = json.loads(self._process.stdout.readline())
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer["value"]

    def open(self, family: str = "AF_INET", kind: str = "SOCK_STREAM") -> str:
        """The expression of a new socket."""
        count: int = self.ask(f"sockets.append(socket({family}, {kind})) or len(sockets)")
        self.ask(f"sockets[{count - 1}].settimeout(5)")
        return f"sockets[{count - 1}]"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """A namespace with nothing but a loopback."""
    path = f"/run/netns/pt-sk{os.getpid()}"
    netns.create(path)
    with netns.inside(path):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = cgroup_mount() / NAME
    folder.mkdir()
    yield path
    folder.rmdir()
    netns.remove(path)


@pytest.fixture
def services(datapath: Harness) -> Iterator[Services]:
    made = Services(datapath.maps)
    made.clear()
    yield made
    made.clear()


@pytest.fixture
def client(datapath: Harness, services: Services, place: str) -> Iterator[Client]:
    """The test's thread is where the client is."""
    table, rows = CgroupsTable(datapath.root), datapath.datapath.program_rows()
    wanted = {
        CgroupKey(NAME, hook): AttachmentRow(f"socket_{hook}", rows[f"socket_{hook}"].digest) for hook in SocketHook
    }
    table.write(wanted, ())
    with netns.inside(place):
        made = Client()
        yield made
        made.close()
    table.write({}, list(wanted))


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


def listen(listeners: list[socket.socket], address: str, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, str]:
    """A backend: its socket and its name."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind)
    listeners.append(made)
    made.settimeout(5)
    made.bind((address, 0))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    port = made.getsockname()[1]
    return made, f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@pytest.mark.parametrize("version", FAMILIES)
def test_a_connection_reaches_a_backend_and_shows_the_service(
    version: str, client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    family, vip, local = FAMILIES[version]
    backend, name = listen(listeners, local)
    services.serve(vip, 80, [name])
    made = client.open(family)
    client.ask(f"{made}.connect(('{vip}', 80))")
    accepted, peer = backend.accept()
    listeners.append(accepted)
    client.ask(f"{made}.sendall(b'hello')")
    assert accepted.recv(5) == b"hello"
    assert client.ask(f"{made}.getpeername()")[:2] == [vip, 80]
    assert client.ask(f"{made}.getsockname()")[:2] == list(peer[:2])


def test_an_ipv4_service_is_reached_from_an_ipv6_socket(
    client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    backend, name = listen(listeners, "127.0.0.1")
    services.serve(VIP, 80, [name])
    made = client.open("AF_INET6")
    client.ask(f"{made}.connect(('::ffff:{VIP}', 80))")
    listeners.append(backend.accept()[0])
    assert client.ask(f"{made}.getpeername()")[:2] == [f"::ffff:{VIP}", 80]


def test_an_address_that_is_no_service_is_left_alone(client: Client, listeners: list[socket.socket]) -> None:
    backend, name = listen(listeners, "127.0.0.1")
    port = int(name.rpartition(":")[2])
    made = client.open()
    client.ask(f"{made}.connect(('127.0.0.1', {port}))")
    listeners.append(backend.accept()[0])
    assert client.ask(f"{made}.getpeername()") == ["127.0.0.1", port]


@pytest.mark.parametrize("version", FAMILIES)
def test_a_datagram_gets_its_answer_from_the_service(
    version: str, client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    family, vip, local = FAMILIES[version]
    backend, name = listen(listeners, local, socket.SOCK_DGRAM)
    services.serve(vip, 53, [name], protocol=UDP)
    made = client.open(family, "SOCK_DGRAM")
    client.ask(f"{made}.sendto(b'ask', ('{vip}', 53))")
    asked, peer = backend.recvfrom(16)
    backend.sendto(asked + b"ed", peer)
    data, source = client.ask(f"{made}.recvfrom(16)")
    assert (data, source[:2]) == ("asked", [vip, 53])


def test_a_mapped_datagram_gets_its_answer_from_the_service(
    client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    backend, name = listen(listeners, "127.0.0.1", socket.SOCK_DGRAM)
    services.serve(VIP, 53, [name], protocol=UDP)
    made = client.open("AF_INET6", "SOCK_DGRAM")
    client.ask(f"{made}.sendto(b'ask', ('::ffff:{VIP}', 53))")
    backend.sendto(b"yes", backend.recvfrom(16)[1])
    data, source = client.ask(f"{made}.recvfrom(16)")
    assert (data, source[:2]) == ("yes", [f"::ffff:{VIP}", 53])


def test_a_connected_datagram_socket_shows_the_service(
    client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    backend, name = listen(listeners, "127.0.0.1", socket.SOCK_DGRAM)
    services.serve(VIP, 53, [name], protocol=UDP)
    made = client.open(kind="SOCK_DGRAM")
    client.ask(f"{made}.connect(('{VIP}', 53))")
    client.ask(f"{made}.send(b'ask')")
    backend.sendto(b"yes", backend.recvfrom(16)[1])
    assert client.ask(f"{made}.recvfrom(16)") == ["yes", [VIP, 53]]
    assert client.ask(f"{made}.getpeername()") == [VIP, 53]


def test_a_service_without_a_backend_refuses(client: Client, services: Services) -> None:
    services.serve(VIP, 80, [])
    services.serve(VIP, 80, [], protocol=UDP)
    with pytest.raises(ConnectionRefusedError):
        client.ask(f"{client.open()}.connect(('{VIP}', 80))")
    with pytest.raises(ConnectionRefusedError):
        client.ask(f"{client.open(kind='SOCK_DGRAM')}.sendto(b'x', ('{VIP}', 80))")


def connect(client: Client, listeners: list[socket.socket], backends: dict[str, socket.socket]) -> str:
    """The name of the backend that a new connection reached."""
    made = client.open()
    client.ask(f"{made}.connect(('{VIP}', 80))")
    own = client.ask(f"{made}.getsockname()")
    for name, backend in backends.items():
        backend.setblocking(False)
        try:
            accepted, peer = backend.accept()
        except BlockingIOError:
            continue
        listeners.append(accepted)
        assert list(peer) == own
        return name
    raise AssertionError("no backend was reached")


@pytest.mark.parametrize("algorithm", [0, RANDOM])
def test_connections_are_spread_over_the_backends(
    algorithm: int, client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    backends = {name: one for one, name in (listen(listeners, "127.0.0.1") for _ in range(3))}
    services.serve(VIP, 80, list(backends), algorithm=algorithm)
    reached = Counter(connect(client, listeners, backends) for _ in range(60))
    assert min(reached[name] for name in backends) >= 5


def test_a_client_keeps_its_backend_where_the_service_asks_for_it(
    client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    backends = {name: one for one, name in (listen(listeners, "127.0.0.1") for _ in range(4))}
    services.serve(VIP, 80, list(backends), affinity_s=600, algorithm=RANDOM)
    reached = {connect(client, listeners, backends) for _ in range(12)}
    assert len(reached) == 1
    services.serve(VIP, 80, list(reversed(backends)), affinity_s=600, algorithm=RANDOM)
    assert {connect(client, listeners, backends) for _ in range(4)} == reached
    left = [name for name in backends if name not in reached]
    services.serve(VIP, 80, left, affinity_s=600, algorithm=RANDOM)
    moved = {connect(client, listeners, backends) for _ in range(8)}
    assert len(moved) == 1
    assert moved <= set(left)


def test_datagrams_of_a_socket_stay_with_a_living_backend(
    client: Client, services: Services, listeners: list[socket.socket]
) -> None:
    first, one = listen(listeners, "127.0.0.1", socket.SOCK_DGRAM)
    second, other = listen(listeners, "127.0.0.1", socket.SOCK_DGRAM)
    services.serve(VIP, 53, [one], protocol=UDP)
    made = client.open(kind="SOCK_DGRAM")
    client.ask(f"{made}.sendto(b'1', ('{VIP}', 53))")
    services.serve(VIP, 53, [other], protocol=UDP)
    client.ask(f"{made}.sendto(b'2', ('{VIP}', 53))")
    assert [first.recv(1), first.recv(1)] == [b"1", b"2"]
    services.kill(one, UDP)
    client.ask(f"{made}.sendto(b'3', ('{VIP}', 53))")
    assert second.recv(1) == b"3"


def test_a_connection_outlives_its_service(client: Client, services: Services, listeners: list[socket.socket]) -> None:
    backend, name = listen(listeners, "127.0.0.1")
    services.serve(VIP, 80, [name])
    made = client.open()
    client.ask(f"{made}.connect(('{VIP}', 80))")
    accepted, _ = backend.accept()
    listeners.append(accepted)
    services.stop(VIP, 80)
    client.ask(f"{made}.sendall(b'still')")
    assert accepted.recv(5) == b"still"


def test_a_service_counts_from_its_epoch_on(
    client: Client, datapath: Harness, services: Services, listeners: list[socket.socket]
) -> None:
    backend, name = listen(listeners, "127.0.0.1")
    services.serve(VIP, 80, [name], since=1)
    with pytest.raises(OSError, match="unreachable"):
        client.ask(f"{client.open()}.connect(('{VIP}', 80))")
    datapath.become(policy=[Allow(101)])
    client.ask(f"{client.open()}.connect(('{VIP}', 80))")
    listeners.append(backend.accept()[0])
