"""A client on the segment of several hosts, which asks for Services, and backends that say who they are.

The client is the stranger of hosts.py. It knows the way to the load balancer's address over the first host.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedRWPair

from tests.e2e.across import DEADLINE_S, listening, opened
from tests.e2e.associations import answers, associated
from tests.e2e.daemon_host import until
from tests.e2e.hosts import STRANGER, Hosts

BACKENDS = ("a1", "a2", "b2")
PORT = 8080
LOAD_BALANCER = {4: "192.0.2.80", 6: "2001:db8:2::80"}
CLIENT = {4: f"10.98.0.{STRANGER}", 6: f"fd98::{STRANGER}"}
WORDS = 100_000  # bytes that are said there and back


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
        answers(server, PORT, name)


def _shut(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


def _talk(name: str, connection: socket.socket, peer: str) -> None:
    with suppress(OSError), connection:
        connection.settimeout(DEADLINE_S)
        connection.sendall(f"{name} {peer}\n".encode())
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def set_out(hosts: Hosts) -> None:
    """The client knows its way, and may use its addresses."""
    for version in (4, 6):
        lead(hosts, version, 1)
    tentative = ["-6", "address", "show", "dev", "br0", "tentative"]
    until(lambda: not hosts.ip("wire", *tentative), "the client may use its IPv6 address")


def lead(hosts: Hosts, version: int, number: int) -> None:
    """From now on the network has the client's packets for the load balancer come to this host."""
    way = f"{LOAD_BALANCER[version]}/{32 if version == 4 else 128} via {hosts.underlay(number)[version == 6]}"
    hosts.ip("wire", *f"-{version} route replace {way}".split())


def host(hosts: Hosts, number: int, version: int) -> str:
    """Where the client finds a host."""
    return hosts.underlay(number)[version == 6]


class Connection:
    """To a service; `name` is the backend that answers, `seen` whom that one sees."""

    def __init__(self, stream: BufferedRWPair) -> None:
        self._stream = stream
        self.name, self.seen = self._stream.readline().decode().split()

    def talks(self, size: int = 1) -> bool:
        """Whether so many bytes come back as they were said."""
        words = bytes(size)
        saying = threading.Thread(target=self._say, args=(words,))
        saying.start()
        heard = self._stream.read(size)
        saying.join()
        return heard == words

    def _say(self, words: bytes) -> None:
        with suppress(OSError):
            self._stream.write(words)
            self._stream.flush()


@contextmanager
def connected(
    hosts: Hosts, address: str, port: int, patience_s: float = DEADLINE_S, place: str = "wire"
) -> Iterator[Connection]:
    """`place`: where the client is; outside, or at a host or a workload."""
    with opened(hosts.space(place), address, socket.SOCK_STREAM) as client:
        client.settimeout(patience_s)
        client.connect((address, port))
        with client.makefile("rwb") as stream:
            yield Connection(stream)


def asks(hosts: Hosts, address: str, port: int) -> tuple[str, str]:
    """Who answers the client over TCP, and whom that one sees; after some words there and back."""
    with connected(hosts, address, port) as found:
        assert found.talks(WORDS)
        return found.name, found.seen


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
