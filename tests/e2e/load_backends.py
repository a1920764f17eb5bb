"""Backends for tests under load, one in each namespace, all in one process: they answer every message with their name.

    python -m tests.e2e.load_backends PORT NAME=NAMESPACE...

Lines of stdin, each answered by a line of JSON: `open NAME` begins to listen; `kill NAME` ends it as the kernel ends a
process, by resets, and says which connections were open then; `count` says how many messages were answered.
A message is the number of its connection and of its turn; the answer is the message and the name. Clients close first,
so a connection that has no answer yet is open here.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import struct
import sys
from contextlib import suppress

from reconciler.kernel import netns

MESSAGE = struct.Struct("=II")
NAME_BYTES = 8
ANSWER_BYTES = MESSAGE.size + NAME_BYTES
UNTOLD = 0  # the number of a connection that has said nothing yet
BACKLOG = 4096
RESET = struct.pack("ii", 1, 0)  # struct linger: what a connection is closed by


class Backend:
    def __init__(self, name: str, namespace: str, port: int, poll: select.epoll) -> None:
        self.name = name
        self._answer = name.encode().ljust(NAME_BYTES)
        self._namespace, self._port, self._poll = namespace, port, poll
        self.listener: socket.socket | None = None
        self.connections: dict[int, tuple[socket.socket, int]] = {}  # by descriptor; and their numbers
        self.answered = 0

    def open(self) -> None:
        with netns.inside(self._namespace):
            self.listener = socket.create_server(
                ("::", self._port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
            )
        self.listener.setblocking(False)
        self._poll.register(self.listener, select.EPOLLIN)

    def kill(self) -> list[int]:
        """Numbers of the connections that were open, `UNTOLD` if they are not known."""
        assert self.listener is not None
        for descriptor in {*self.connections, *self.accept()}:
            with suppress(ConnectionError):
                self._hear(descriptor)
        self._poll.unregister(self.listener)
        self.listener.close()
        self.listener = None
        found = [number for _, number in self.connections.values()]
        for one, _ in self.connections.values():
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.close()
        self.connections = {}
        return found

    def accept(self) -> list[int]:
        """Descriptors of new connections."""
        assert self.listener is not None
        found = []
        with suppress(BlockingIOError):
            while True:
                made, _ = self.listener.accept()
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.setblocking(False)
                self.connections[made.fileno()] = made, UNTOLD
                self._poll.register(made, select.EPOLLIN)
                found.append(made.fileno())
        return found

    def talk(self, descriptor: int) -> bool:
        """Whether the connection goes on."""
        made, _ = self.connections[descriptor]
        with suppress(ConnectionError):
            message = self._hear(descriptor)
            if message:
                made.send(message + self._answer)
                self.answered += 1
            if message != b"":
                return True
        made.close()
        del self.connections[descriptor]
        return False

    def _hear(self, descriptor: int) -> bytes | None:
        """The next message; empty at the end, None if there is none yet."""
        made, _ = self.connections[descriptor]
        try:
            message = made.recv(MESSAGE.size)
        except BlockingIOError:
            return None
        if message:
            self.connections[descriptor] = made, MESSAGE.unpack(message)[0]
        return message


class Backends:
    def __init__(self, port: int, namespaces: dict[str, str]) -> None:
        self._poll = select.epoll()
        self._backends = {name: Backend(name, path, port, self._poll) for name, path in namespaces.items()}
        self._owners: dict[int, Backend] = {}  # of descriptors
        self._poll.register(sys.stdin, select.EPOLLIN)

    def serve(self) -> None:
        """Until stdin ends."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == sys.stdin.fileno():
                    if not (line := sys.stdin.readline()):
                        return
                    print(json.dumps(self._do(*line.split())), flush=True)
                elif owner := self._owners.get(descriptor):
                    self._take(owner, descriptor)

    def _take(self, owner: Backend, descriptor: int) -> None:
        if owner.listener is not None and descriptor == owner.listener.fileno():
            self._owners.update(dict.fromkeys(owner.accept(), owner))
        elif not owner.talk(descriptor):
            del self._owners[descriptor]

    def _do(self, what: str, name: str = "") -> object:
        if what == "count":
            return sum(one.answered for one in self._backends.values())
        backend = self._backends[name]
        if what == "open":
            backend.open()
            assert backend.listener is not None
            self._owners[backend.listener.fileno()] = backend
            return []
        gone = backend.kill()
        self._owners = {number: owner for number, owner in self._owners.items() if owner is not backend}
        return gone


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, *places = sys.argv[1:]
    Backends(int(port), dict(place.split("=", 1) for place in places)).serve()


if __name__ == "__main__":
    main()
