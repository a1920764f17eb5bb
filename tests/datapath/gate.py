"""A node device for packets to come in and to leave, and what a test asks of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

from reconciler.kernel.devices import DevicesTable
from reconciler.model.datapath import Hook
from reconciler.model.outside import DeviceFlag, DeviceRow

from .harness import Device, Harness, Ran
from .packets import ICMP, ICMPV6, SCTP, checksum, crc32c, ip

HOST = {4: "10.0.0.1", 6: "fd00::1"}
WORLD = {4: "203.0.113.9", 6: "2001:db8::9"}
ROUTER = {4: "203.0.113.1", 6: "2001:db8::1"}
PROGRAMS = {Hook.INGRESS: "from_netdev", Hook.EGRESS: "to_netdev"}
VETH = 99  # some other device that brought the packet in


class Gate:
    """The last of the harness's devices, as a node device; the first one's workload is `sender`."""

    def __init__(self, datapath: Harness) -> None:
        self.datapath = datapath
        self.device = datapath.devices[-1]
        self.sender = datapath.devices[0]

    def address(self, version: int, device: Device | None = None) -> str:
        one = device or self.sender
        return str(one.address4 if version == 4 else one.address6)

    def leaves(self, packet: bytes, *, forwarded: bool = True) -> Ran:
        return self.datapath.run(packet, self.device.ifindex, Hook.EGRESS, ingress_ifindex=VETH if forwarded else 0)

    def arrives(self, packet: bytes) -> Ran:
        return self.datapath.run(packet, self.device.ifindex, Hook.INGRESS, ingress_ifindex=self.device.ifindex)

    def reasons(self) -> list[int]:
        return list(self.datapath.events()["reason"].tolist())


@contextmanager
def made_gate(datapath: Harness, flags: DeviceFlag) -> Iterator[Gate]:
    """The programs of node devices in the place of those of workloads."""
    workloads = datapath.programs
    datapath.programs = {way: datapath.by_name[name] for way, name in PROGRAMS.items()}
    translations, devices = datapath.maps.open("translations"), DevicesTable(datapath.maps)
    row = DeviceRow(flags, IPv4Address(HOST[4]), IPv6Address(HOST[6]))
    devices.write({datapath.devices[-1].ifname: row}, ())
    datapath.become_usual()
    yield Gate(datapath)
    translations.delete(translations.read()[0])
    devices.write({}, list(devices.live().rows))
    datapath.programs = workloads


def ends(packet: bytes) -> tuple[str, int, str, int]:
    """Addresses and ports; of an echo the identifier for both ports."""
    four = packet[12:14] == b"\x08\x00"
    body = packet[34:] if four else packet[54:]
    source, destination = (packet[26:30], packet[30:34]) if four else (packet[22:38], packet[38:54])
    protocol = packet[23] if four else packet[20]
    echoing = protocol in (ICMP, ICMPV6)
    ports = struct.unpack("!HH", body[4:6] * 2 if echoing else body[:4])
    return str(ip_address(source)), ports[0], str(ip_address(destination)), ports[1]


def is_whole(packet: bytes) -> bool:
    """Whether every checksum is right."""
    four = packet[12:14] == b"\x08\x00"
    head, body = (packet[14:34], packet[34:]) if four else (packet[14:54], packet[54:])
    protocol = head[9] if four else head[6]
    pseudo = (head[12:20] if four else head[8:40]) + struct.pack("!IxxxB", len(body), protocol)
    if protocol == SCTP:
        return struct.pack("<I", crc32c(body[:8] + bytes(4) + body[12:])) == body[8:12]
    return (not four or checksum(head) == 0) and checksum((b"" if protocol == ICMP else pseudo) + body) == 0


def error(version: int, source: str, destination: str, quoted: bytes, mtu: int = 0) -> bytes:
    """About a packet: that its destination is unreachable or, with an MTU, that it was too large."""
    inner = quoted[14:]
    if version == 4:
        message = struct.pack("!BBHI", 3, 4 if mtu else 3, 0, mtu) + inner
        return ip(source, destination, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])
    message = struct.pack("!BBHI", *((2, 0) if mtu else (1, 4)), 0, mtu) + inner
    ends = ip_address(source).packed + ip_address(destination).packed
    pseudo = ends + struct.pack("!IxxxB", len(message), ICMPV6)
    return ip(source, destination, ICMPV6, message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:])
