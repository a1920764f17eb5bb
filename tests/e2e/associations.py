"""Words over SCTP between namespaces. Not every kernel has sockets for it, so its packets are put together here, and
whoever has a raw socket gets them.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from reconciler.kernel import netns
from tests.datapath.packets import SCTP, association
from tests.e2e.across import DEADLINE_S


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


def answers(server: socket.socket, port: int, name: str) -> None:
    """Tells whoever asks at the port this name and whom the socket sees, until it is shut."""
    with suppress(OSError):
        while True:
            packet, peer = server.recvfrom(1 << 16)
            if not packet:
                return
            if (heard := understood(packet)) and heard[1] == port:
                server.sendto(association(port, heard[0], f"{name} {peer[0]}".encode()), peer)


def associates(client: socket.socket, own: int, address: str, port: int) -> tuple[str, str]:
    """Who answers the client's port `own`, and whom that one sees."""
    client.sendto(association(own, port, bytes(100)), (address, 0))
    packet, peer = client.recvfrom(1 << 16)
    heard = understood(packet)
    assert heard
    assert (peer[0], heard[:2]) == (address, (port, own))
    name, seen = heard[2].decode().split()
    return name, seen
