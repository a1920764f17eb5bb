"""UDP between two workloads, in a thread: every datagram is numbered, so each one that is lost is known.

The receiver sends back what it gets. Its buffers hold more than a test sends, so only the way between can lose any.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Protocol, Self

from reconciler.kernel import netns
from tests.e2e.daemon_host import until

SO_RCVBUFFORCE = 33
BUFFER_BYTES = 64 << 20
NUMBER = struct.Struct("=Q")
BURST, PAUSE_S = 8, 0.002
SETTLE_S = 2.0


class Place(Protocol):
    """Where workloads are: a host, or several."""

    def inside(self, workload: str) -> str: ...

    def addresses(self, workload: str) -> list[str]: ...


class Flow(threading.Thread):
    """From `sender` to `receiver`, to a port, over both families in turn, about 4,000 datagrams a second.

    `sent`, `arrived` and `returned` are numbers of datagrams; use it as a context manager.
    """

    def __init__(
        self,
        host: Place,
        sender: str,
        receiver: str,
        port: int,
        addresses: Sequence[str] = (),
        pause_s: float = PAUSE_S,
    ) -> None:
        """`addresses` are the receiver's, if no daemon is there to tell them; `pause_s` is between two bursts."""
        super().__init__(name=f"{sender} to {receiver}", daemon=True)
        self._ending = threading.Event()
        self._open = ExitStack()
        self._pause_s = pause_s
        self.sent = 0
        self._arrived: set[int] = set()
        self._returned: set[int] = set()
        self.failure: Exception | None = None
        try:
            self._pairs = [
                self._pair(host, sender, receiver, one, port) for one in addresses or host.addresses(receiver)
            ]
        except BaseException:
            self._open.close()
            raise

    def _pair(self, host: Place, sender: str, receiver: str, address: str, port: int) -> tuple[socket.socket, ...]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server, client = (self._socket(host.inside(one), family) for one in (receiver, sender))
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("", port))
        client.connect((address, port))
        return client, server

    def _socket(self, namespace: str, family: socket.AddressFamily) -> socket.socket:
        with netns.inside(namespace):
            made = self._open.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        made.setblocking(False)
        return made

    @property
    def arrived(self) -> int:
        return len(self._arrived)

    @property
    def returned(self) -> int:
        return len(self._returned)

    @property
    def lost(self) -> int:
        """Sent and not returned, so far."""
        return self.sent - self.returned

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Sends no more, and takes what is still on its way."""
        self._ending.set()
        self.join()
        self._open.close()
        if self.failure is not None and error is None:
            raise self.failure

    def more(self, datagrams: int = 400) -> None:
        """Returns when so many more were sent."""
        wanted = self.sent + datagrams
        until(lambda: self.sent >= wanted or not self.is_alive(), "datagrams are sent")

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._burst()
                self._pump(0)
                time.sleep(self._pause_s)
            deadline = time.monotonic() + SETTLE_S
            while self.lost and time.monotonic() < deadline and self._pump(0.2):
                pass
        except Exception as failure:
            self.failure = failure

    def _burst(self) -> None:
        for _ in range(BURST):
            client, _ = self._pairs[self.sent % len(self._pairs)]
            with suppress(ConnectionRefusedError):  # what came back for an earlier one
                client.send(NUMBER.pack(self.sent))
            self.sent += 1

    def _pump(self, within_s: float) -> bool:
        """Echo and count what is there; whether anything was."""
        ready, _, _ = select.select([one for pair in self._pairs for one in pair], [], [], within_s)
        for client, server in self._pairs:
            if server in ready:
                for data, sender in _datagrams(server):
                    self._arrived.add(*NUMBER.unpack(data))
                    server.sendto(data, sender)
            if client in ready:
                self._returned.update(NUMBER.unpack(data)[0] for data, _ in _datagrams(client))
        return bool(ready)


def _datagrams(opened: socket.socket) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    while True:
        try:
            yield opened.recvfrom(64)
        except BlockingIOError:
            return
        except ConnectionRefusedError:
            continue


@contextmanager
def lossless(host: Place, sender: str, receiver: str, port: int, addresses: Sequence[str] = ()) -> Iterator[Flow]:
    """Nothing is lost while the block runs."""
    with Flow(host, sender, receiver, port, addresses) as flow:
        flow.more()
        yield flow
        flow.more()
    assert flow.sent > 0
    assert flow.lost == 0


@contextmanager
def stopped(host: Place, sender: str, receiver: str, port: int, addresses: Sequence[str] = ()) -> Iterator[Flow]:
    """Nothing arrives while the block runs."""
    with Flow(host, sender, receiver, port, addresses) as flow:
        flow.more()
        yield flow
        flow.more()
    assert flow.sent > 0
    assert flow.arrived == 0
