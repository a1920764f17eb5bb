"""Traffic between namespaces, and what of it is seen on the wire."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import NamedTuple

from reconciler.kernel import netns

DEADLINE_S = 10.0
ETH_P_ALL = 3
PORT = 5001


def pings(space: str, address: str, *options: str) -> bool:
    command = ["nsenter", f"--net={space}", "ping", "-c1", "-W2", *options, address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def opened(space: str, address: str, kind: socket.SocketKind) -> socket.socket:
    """A socket in a namespace, for talking to the address."""
    with netns.inside(space):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.settimeout(DEADLINE_S)
    return made


def listening(
    space: str, address: str, kind: socket.SocketKind = socket.SOCK_STREAM, port: int = PORT
) -> socket.socket:
    made = opened(space, address, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind is socket.SOCK_STREAM:
        made.listen()
    return made


def bulk(sender: str, receiver: str, address: str, size: int = 8 << 20) -> tuple[str, str]:
    """So many bytes over TCP: their digest where they were sent and where they arrived."""
    data = os.urandom(size)
    arrived = hashlib.sha256()
    with listening(receiver, address) as server, opened(sender, address, socket.SOCK_STREAM) as client:

        def receive() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                while part := connection.recv(1 << 16):
                    arrived.update(part)

        reading = threading.Thread(target=receive)
        reading.start()
        client.connect((address, PORT))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        reading.join(DEADLINE_S)
    return hashlib.sha256(data).hexdigest(), arrived.hexdigest()


def answers(sender: str, receiver: str, address: str, size: int = 1) -> bool:
    """Whether a datagram of that size gets there and back unchanged."""
    data = os.urandom(size)
    with (
        listening(receiver, address, socket.SOCK_DGRAM) as server,
        opened(sender, address, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(data, (address, PORT))
        found, peer = server.recvfrom(1 << 16)
        server.sendto(found, peer)
        return client.recv(1 << 16) == data


class Seen(NamedTuple):
    """A packet's own addresses, and its VNI if it was wrapped."""

    source: str
    destination: str
    vni: int | None = None


@contextmanager
def sniffed(space: str, device: str, port: int = 0) -> Iterator[Callable[[], list[Seen]]]:
    """What passes a device until the block ends. `port`: UDP port of wrapped packets, which are unwrapped.

    The socket hears nothing before it is bound (protocol 0, packet(7)): else it would hear other devices meanwhile.
    """
    with netns.inside(space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((device, ETH_P_ALL))
        wire.setblocking(False)
        frames: list[bytes] = []

        def seen() -> list[Seen]:
            return [packet for frame in frames if (packet := _packet(frame, port)) is not None]

        yield seen
        while True:
            try:
                frames.append(wire.recv(1 << 16))
            except BlockingIOError:
                return


def _packet(frame: bytes, port: int) -> Seen | None:
    outer = _addresses(frame)
    if outer is None:
        return None
    if not port or outer.protocol != socket.IPPROTO_UDP or struct.unpack_from("!H", frame, outer.end + 2)[0] != port:
        return Seen(outer.source, outer.destination)
    header = outer.end + 8
    inner = _addresses(frame[header + 8 :])
    vni = int.from_bytes(frame[header + 4 : header + 7], "big")
    return Seen(inner.source, inner.destination, vni) if inner else None


class _Addresses(NamedTuple):
    source: str
    destination: str
    protocol: int
    end: int  # of the IP header


def _addresses(frame: bytes) -> _Addresses | None:
    kind = frame[12:14]
    if kind == b"\x08\x00":
        source, destination = (str(ip_address(frame[at : at + 4])) for at in (26, 30))
        return _Addresses(source, destination, frame[23], 14 + (frame[14] & 15) * 4)
    if kind == b"\x86\xdd":
        source, destination = (str(ip_address(frame[at : at + 16])) for at in (22, 38))
        return _Addresses(source, destination, frame[20], 54)
    return None
