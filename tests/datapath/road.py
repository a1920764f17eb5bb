"""A shop on a road: its device has routes and neighbours, so that packets can be forwarded past the stack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.lab.underlay import run_ip

from .gate import HOST, WORLD
from .harness import Harness
from .packets import ACK, SYN, checksum
from .shop import ELSEWHERE, Shop, made_shop, packet

HOP = {4: 22, 6: 21}  # where a frame has it
CLIENT_MAC, BACKEND_MAC = "02:00:00:00:0c:01", "02:00:00:00:0b:01"


class Road(Shop):
    """Client and backend are neighbours at the shop's device."""

    namespace: str

    def asks(self, version: int, protocol: int, flags: int = ACK) -> bytes:
        return packet(protocol, WORLD[version], 5000, HOST[version], 30080, flags)

    def answers(self, version: int, protocol: int, port: int, flags: int = ACK) -> bytes:
        """To the port that the backend sees."""
        return packet(protocol, ELSEWHERE[version], 8080, HOST[version], port, flags)

    def rows(self) -> int:
        return len(self.datapath.maps.open("translations").read()[0])

    def set_up(self, *commands: str) -> None:
        """As `ip` is told."""
        run_ip(self.namespace, list(commands))

    def begin(self, version: int, protocol: int) -> bytes:
        """A flow's first packet, as it leaves for the backend."""
        self.open(version, ELSEWHERE[version], protocol=protocol)
        return self.leaves(self.arrives(self.asks(version, protocol, SYN))[1])[1]


def with_last_hop(frame: bytes) -> bytes:
    """No router may send it on."""
    if frame[12:14] != b"\x08\x00":
        return frame[:21] + b"\x01" + frame[22:]
    head = frame[14:22] + b"\x01" + frame[23:24] + bytes(2) + frame[26:34]
    return frame[:14] + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + frame[34:]


@contextmanager
def made_road(datapath: Harness, namespace: str) -> Iterator[Road]:
    with made_shop(datapath) as made:
        road = Road(made.datapath)
        road.services, road.namespace = made.services, namespace
        ifname = road.device.ifname
        road.set_up(f"link set {ifname} up", f"link set eth{ifname[-1]} up")
        for version in (4, 6):
            Path(f"/proc/sys/net/ipv{version}/conf/{ifname}/forwarding").write_text("1")
            for address, mac in ((WORLD[version], CLIENT_MAC), (ELSEWHERE[version], BACKEND_MAC)):
                road.set_up(
                    f"route replace {address} dev {ifname}",
                    f"neighbour replace {address} lladdr {mac} dev {ifname} nud permanent",
                )
        yield road
        road.set_up(f"link set {ifname} down")
