"""Connections and datagrams between namespaces, all at once: each ends with an answer or with the datapath's own word
that it dropped the packet, so nobody waits for what does not come.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from reconciler.bpf.ringbuf import RingBuffer
from reconciler.kernel import netns
from reconciler.model.policy import PROTOCOLS
from reconciler.observe.events import Decoder, shipped_layout
from reconciler.observe.flow import EventType

DEADLINE_S = 10.0
TCP, UDP = PROTOCOLS["TCP"], PROTOCOLS["UDP"]
_KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
_FIRST_PORT = 20000


class Probe(NamedTuple):
    source: IPv4Address
    destination: IPv4Address
    protocol: int
    port: int


@dataclass(frozen=True)
class _Sent:
    """Known by its source port, which no other probe of the whole run has."""

    probe: Probe
    socket: socket.socket


class Probing:
    """`places`: address -> namespace. A server answers at each address on each of `ports`, by TCP and by UDP."""

    def __init__(self, places: Mapping[IPv4Address, str], ports: Iterable[int], events: int, open_: ExitStack) -> None:
        self._places = places
        self._events: list[bytes] = []
        self._decoder = Decoder(shipped_layout())
        self._selector = open_.enter_context(selectors.DefaultSelector())
        self._next_port = _FIRST_PORT
        self._ring = RingBuffer(events, self._events.append)
        open_.callback(self._ring.close)
        self._selector.register(self._ring.fileno(), selectors.EVENT_READ, None)
        for path in places.values():
            for protocol in _KINDS:
                for port in ports:
                    server = open_.enter_context(_opened(path, protocol, port))
                    if protocol == TCP:
                        server.listen(64)
                    self._selector.register(server, selectors.EVENT_READ, "server")

    def reached(self, probes: Iterable[Probe]) -> dict[Probe, bool | None]:
        """None: there was neither an answer nor a drop in time."""
        with ExitStack() as open_:
            sent = {}
            for probe in probes:
                self._next_port += 1
                sent[self._next_port] = self._send(probe, self._next_port, open_)
            found: dict[Probe, bool | None] = {one.probe: None for one in sent.values()}
            deadline = time.monotonic() + DEADLINE_S
            while None in found.values() and time.monotonic() < deadline:
                for port, outcome in self._happened(deadline - time.monotonic()):
                    if port in sent:
                        found[sent[port].probe] = outcome
                        with suppress(KeyError):
                            self._selector.unregister(sent[port].socket)
            for one in sent.values():
                with suppress(KeyError):
                    self._selector.unregister(one.socket)
        return found

    def _send(self, probe: Probe, port: int, open_: ExitStack) -> _Sent:
        one = open_.enter_context(_opened(self._places[probe.source], probe.protocol, port))
        one.connect_ex((str(probe.destination), probe.port))
        if probe.protocol == UDP:
            one.send(b"plumb")
        self._selector.register(one, selectors.EVENT_WRITE if probe.protocol == TCP else selectors.EVENT_READ, port)
        return _Sent(probe, one)

    def _happened(self, timeout_s: float) -> Iterator[tuple[int, bool]]:
        """Source ports of probes, and whether they got an answer. Connections of earlier steps may yet be cut."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                yield from self._dropped()
            elif key.data == "server":
                _serve(key.fileobj)
            else:
                assert isinstance(key.fileobj, socket.socket)
                failed = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert not failed, f"a probe ended with error {failed}"
                yield key.data, True

    def _dropped(self) -> Iterator[tuple[int, bool]]:
        self._events.clear()
        self._ring.consume()
        for event in self._decoder.decode(self._events):
            if event.type is EventType.DROP:
                yield event.destination_port if event.reply else event.source_port, False


def _serve(server: object) -> None:
    assert isinstance(server, socket.socket)
    if server.type == socket.SOCK_STREAM:
        server.accept()[0].close()
    else:
        data, whence = server.recvfrom(64)
        server.sendto(data, whence)


@contextmanager
def _opened(path: str, protocol: int, port: int) -> Iterator[socket.socket]:
    """Bound in a namespace, where it stays; it never blocks."""
    with netns.inside(path):
        made = socket.socket(socket.AF_INET, _KINDS[protocol])
    with made:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        yield made
