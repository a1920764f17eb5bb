"""Services with real sockets between real namespaces: what kernels make of packets that are translated one by one."""

from __future__ import annotations

import hashlib
import os
import random
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from reconciler.engine.diff import diff_rows
from reconciler.engine.transaction import write
from reconciler.kernel import netns
from tests.bench.bed import A, B, Bed, Side, made

from .harness import Allow, policy_rows
from .packets import UDP
from .services import Services

VIP, VIP6 = "10.96.0.1", "fd96::1"
FAMILIES = {4: (socket.AF_INET, VIP), 6: (socket.AF_INET6, VIP6)}
families = pytest.mark.parametrize("version", FAMILIES)
BULK = os.urandom(1 << 22)


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with made(Bed("traffic", serving=True)) as found:
        found.attach()
        open_ = policy_rows(Allow(side.identity, egress=way) for side in (A, B) for way in (False, True))
        write([diff_rows("policy", open_, found.columns["policy"].live(), complete=True)], found.tables)
        for side in (A, B):
            with netns.inside(found.inside(side)):
                subprocess.run(["ip", "-6", "route", "add", "default", "dev", "eth0"], check=True)
        yield found


@pytest.fixture
def services(bed: Bed) -> Iterator[Services]:
    made_ = Services(bed.maps)
    yield made_
    made_.clear()
    bed.forget_flows()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    found: list[socket.socket] = []
    yield found
    for one in found:
        one.close()


class Talk:
    """Sockets of the workloads, one family each."""

    def __init__(self, bed: Bed, sockets: list[socket.socket], version: int) -> None:
        self._bed, self._sockets = bed, sockets
        self.version = version
        self.family, self.vip = FAMILIES[version]

    def open(self, side: Side, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with netns.inside(self._bed.inside(side)):
            found = socket.socket(self.family, kind)
        found.settimeout(5)
        self._sockets.append(found)
        return found

    def listen(self, side: Side, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        found = self.open(side, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((self.address(side), port))
        if kind == socket.SOCK_STREAM:
            found.listen(64)
        return found

    def accept(self, server: socket.socket) -> tuple[socket.socket, str]:
        found, peer = server.accept()
        found.settimeout(5)
        self._sockets.append(found)
        return found, peer[0]

    def address(self, side: Side) -> str:
        return side.address4 if self.version == 4 else side.address6

    def name(self, side: Side, port: int) -> str:
        return f"{self.address(side)}:{port}" if self.version == 4 else f"[{self.address(side)}]:{port}"


@pytest.fixture
def talk(bed: Bed, services: Services, sockets: list[socket.socket], version: int) -> Talk:
    return Talk(bed, sockets, version)


@families
def test_a_connection_carries_much_both_ways(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 80, [talk.name(B, 8001)])
    server, client = talk.listen(B, 8001), talk.open(A)
    client.connect((talk.vip, 80))
    accepted, peer = talk.accept(server)
    assert peer == talk.address(A)
    assert client.getpeername()[:2] == (talk.vip, 80)
    for sender, receiver in ((client, accepted), (accepted, client)):
        sending = threading.Thread(target=sender.sendall, args=(BULK,))
        sending.start()
        digest, left = hashlib.sha256(), len(BULK)
        while left:
            part = receiver.recv(min(left, 1 << 16))
            assert part
            digest.update(part)
            left -= len(part)
        sending.join()
        assert digest.digest() == hashlib.sha256(BULK).digest()


@families
def test_a_connection_goes_on_when_its_service_changes_and_goes(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 80, [talk.name(B, 8001)])
    server, client = talk.listen(B, 8001), talk.open(A)
    client.connect((talk.vip, 80))
    accepted, _ = talk.accept(server)
    for change in (lambda: services.serve(talk.vip, 80, [talk.name(B, 8002)]), lambda: services.stop(talk.vip, 80)):
        change()
        client.sendall(b"still")
        assert accepted.recv(5) == b"still"
        accepted.sendall(b"there")
        assert client.recv(5) == b"there"


@families
def test_a_connection_whose_backend_is_gone_is_reset(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 80, [talk.name(B, 8001)])
    server, client = talk.listen(B, 8001), talk.open(A)
    client.connect((talk.vip, 80))
    talk.accept(server)
    services.kill(talk.name(B, 8001))
    client.sendall(b"anybody?")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@families
def test_datagrams_and_fragments_of_datagrams_are_answered(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 53, [talk.name(B, 8001)], protocol=UDP)
    server, client = talk.listen(B, 8001, socket.SOCK_DGRAM), talk.open(A, socket.SOCK_DGRAM)
    for size in (10, 4000):
        client.sendto(BULK[:size], (talk.vip, 53))
        asked, peer = server.recvfrom(1 << 16)
        server.sendto(asked, peer)
        answer, source = client.recvfrom(1 << 16)
        assert (answer, source[:2]) == (BULK[:size], (talk.vip, 53))


@families
def test_a_backend_that_does_not_listen_is_a_service_that_refuses(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 53, [talk.name(B, 8001)], protocol=UDP)
    client = talk.open(A, socket.SOCK_DGRAM)
    client.connect((talk.vip, 53))
    client.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(16)


@families
def test_a_service_without_backends_refuses(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 80, [])
    services.serve(talk.vip, 53, [], protocol=UDP)
    with pytest.raises(ConnectionRefusedError):
        talk.open(A).connect((talk.vip, 80))
    client = talk.open(A, socket.SOCK_DGRAM)
    client.connect((talk.vip, 53))
    client.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(16)


@families
def test_a_workload_reaches_itself_by_its_service(talk: Talk, services: Services) -> None:
    services.serve(talk.vip, 80, [talk.name(A, 8001)])
    server, client = talk.listen(A, 8001), talk.open(A)
    client.connect((talk.vip, 80))
    accepted, peer = talk.accept(server)
    assert peer == talk.vip
    client.sendall(b"to myself")
    assert accepted.recv(16) == b"to myself"
    accepted.sendall(b"from myself")
    assert client.recv(16) == b"from myself"


@families
def test_connections_to_living_backends_go_on_while_others_come_and_die(talk: Talk, services: Services) -> None:
    chance, ports = random.Random(3), range(8001, 8007)
    every, alive = [talk.name(B, port) for port in ports], set[str]()
    connections: list[tuple[socket.socket, str]] = []
    with echoing([talk.listen(B, port) for port in ports]):
        for _ in range(150):
            changed = chance.choice(every)
            if changed not in alive:
                alive.add(changed)
                services.know(changed)
            elif len(alive) > 2:
                alive.discard(changed)
                services.kill(changed)
            services.serve(talk.vip, 80, chance.sample(sorted(alive), max(1, len(alive) - 1)))
            client = talk.open(A)
            client.connect((talk.vip, 80))
            connections = [(one, backend) for one, backend in connections if backend in alive]
            connections.append((client, said(client)))
            for one, backend in chance.sample(connections, min(len(connections), 10)):
                assert said(one) == backend


def said(client: socket.socket) -> str:
    """The backend that answers: its own name."""
    client.sendall(b"?")
    return client.recv(64).decode()


def heard(one: socket.socket) -> bytes:
    """Nothing where the connection was reset: its backend was away for a while."""
    try:
        return one.recv(16)
    except ConnectionResetError:
        return b""


@contextmanager
def echoing(servers: list[socket.socket]) -> Iterator[None]:
    """Each answers every byte with its name."""
    ready, ending = selectors.DefaultSelector(), threading.Event()
    for server in servers:
        ready.register(server, selectors.EVENT_READ)
    names = {server.getsockname()[1]: server.getsockname()[:2] for server in servers}

    def serve() -> None:
        while not ending.is_set():
            for key, _ in ready.select(0.05):
                one = cast(socket.socket, key.fileobj)
                if one in servers:
                    ready.register(one.accept()[0], selectors.EVENT_READ)
                elif heard(one):
                    address, port = names[one.getsockname()[1]]
                    one.sendall((f"[{address}]:{port}" if ":" in address else f"{address}:{port}").encode())
                else:
                    ready.unregister(one)
                    one.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield
    finally:
        ending.set()
        serving.join()
        for key in list(ready.get_map().values()):
            if key.fileobj not in servers:
                cast(socket.socket, key.fileobj).close()
        ready.close()
