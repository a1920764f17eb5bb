"""Packets between nodes: what is taken out of Geneve, and that no mutation of any gets further than it may."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from reconciler.bpf import bpffs
from reconciler.kernel import netns
from reconciler.kernel.devices import DevicesTable
from reconciler.model.datapath import EndpointRow, IpcacheFlag, TunnelRow
from reconciler.model.identity import Reserved
from reconciler.model.outside import DeviceFlag, DeviceRow
from reconciler.observe.flow import Reason

from .conftest import OPTIONS
from .gate import ends, is_whole
from .harness import REDIRECT, SHOT, UNSPEC, Address, Allow, Device, Harness, Network, Ran, loaded_at
from .mutations import LARGE, Way, dropped, errors, frames, survive
from .packets import ACK, CE, ECT0, ECT1, NOT_ECT, SCTP, SYN, TCP, UDP, checksum, class_of, in_class, ip, tcp, udp
from .services import OUTSIDE as OUTSIDE_ONLY
from .services import Services
from .shop import at, packet

CLUSTER = 7
KNOWN = (CLUSTER << 16) + 301
PORT = 6081
DSCP = 46 << 2
HERE = {4: "10.1.0.2", 6: "fd00:1::2"}
ROUTER = {4: "10.1.0.1", 6: "fd00:1::1"}
OUTER_HERE, OUTER_THERE = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
OUTSIDE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
# (family of the inner packet, of the outer ones) -> a workload of the node behind the tunnel
THERE = {(4, 4): "10.2.0.7", (6, 4): "fd00:2::7", (4, 6): "10.3.0.7", (6, 6): "fd00:3::7"}
CIDRS = {(4, 4): "10.2.0.0/24", (6, 4): "fd00:2::/64", (4, 6): "10.3.0.0/24", (6, 6): "fd00:3::/64"}
ways = pytest.mark.parametrize("way", sorted(THERE), ids=lambda way: f"IPv{way[0]} over IPv{way[1]}")
families = pytest.mark.parametrize("family", [4, 6])
geneve_only = pytest.mark.parametrize("loaded", ["geneve"], indirect=True)


@pytest.fixture(scope="module", params=["vxlan", "geneve"])
def loaded(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """A workload's device, one that stands for the overlay's, and one towards the other nodes."""
    path, root = f"/run/netns/pt-dw{os.getpid()}", bpffs.MOUNT_POINT / f"pt-{os.getpid()}-wrapped"
    options = {**OPTIONS, "overlay": True, "geneve": request.param == "geneve", "tunnel_port": PORT}
    netns.create(path)
    try:
        with netns.inside(path):
            device = _devices()
        with loaded_at(root, (device,), options) as harness:
            yield harness
    finally:
        netns.remove(path)


def _devices() -> Device:
    for name in ("lxc1", "overlay", "wire"):
        subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer"], check=True)
        subprocess.run(["ip", "link", "set", f"{name}-peer", "up"], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    for address in (f"{OUTER_HERE[4]}/24", f"{OUTER_HERE[6]}/64"):
        subprocess.run(
            ["ip", "address", "add", address, "dev", "wire", *(["nodad"] if ":" in address else [])], check=True
        )
    for family in (4, 6):
        Path(f"/proc/sys/net/ipv{family}/conf/lo/forwarding").write_text("1")
    index, mac = socket.if_nametoindex("lxc1"), "02:00:00:00:00:01"
    return Device("lxc1", index, mac, IPv4Address(HERE[4]), IPv6Address(HERE[6]), KNOWN)


@pytest.fixture
def datapath(loaded: Harness) -> Iterator[Harness]:
    with netns.inside(f"/run/netns/pt-dw{os.getpid()}"):
        loaded.reset()
        _become(loaded)
        yield loaded
        loaded.generation.finish()


def _become(datapath: Harness) -> None:
    (device,) = datapath.devices
    own: list[Address] = [device.address4, device.address6]
    hosts: list[Address] = [IPv4Address(OUTER_HERE[4]), IPv6Address(OUTER_HERE[6])]
    world: dict[Network | Address, tuple[int, int]] = {IPv4Network("0.0.0.0/0"): (2, 0), IPv6Network("::/0"): (2, 0)}
    tunnels: dict[Network, TunnelRow] = {
        _network(CIDRS[way]): TunnelRow("overlay", _address(OUTER_THERE[way[1]]), _address(OUTER_HERE[way[1]]), CLUSTER)
        for way in THERE
    }
    for router in ROUTER.values():
        tunnels[_network(router)] = TunnelRow("overlay", hosts[0], hosts[0], CLUSTER)
    datapath.become(
        endpoints={address: EndpointRow("lxc1", device.mac, KNOWN) for address in own},
        tunnels=tunnels,
        ipcache=world
        | dict.fromkeys(hosts, (Reserved.HOST, IpcacheFlag.HOST))
        | dict.fromkeys(own, (KNOWN, IpcacheFlag.LOCAL)),
    )


def _network(text: str) -> Network:
    return IPv6Network(text) if ":" in text else IPv4Network(text)


def _address(text: str) -> Address:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def geneve(way: tuple[int, int], frame: bytes, vni: int = KNOWN) -> bytes:
    """A frame as the other node wraps it."""
    header = struct.pack("!BBHI", 0, 0, 0x6558, vni << 8)
    return udp(OUTER_THERE[way[1]], 50000, OUTER_HERE[way[1]], PORT, header + frame)


def unwrapped(datapath: Harness, packet: bytes) -> Ran:
    wire = socket.if_nametoindex("wire")
    return datapath.try_on(datapath.by_name["from_netdev"], packet, wire, wire)


@geneve_only
@ways
def test_what_the_right_node_wrapped_comes_out_as_it_was(datapath: Harness, way: tuple[int, int]) -> None:
    frame = tcp(THERE[way], 1000, HERE[way[0]], 80)
    assert unwrapped(datapath, geneve(way, frame)) == (REDIRECT, frame)


@geneve_only
@ways
@pytest.mark.parametrize("ecn", [ECT0, ECT1, CE])
def test_what_routers_say_of_congestion_comes_out(datapath: Harness, way: tuple[int, int], ecn: int) -> None:
    frame = in_class(tcp(THERE[way], 1000, HERE[way[0]], 80), DSCP | ecn)
    assert unwrapped(datapath, in_class(geneve(way, frame), CE)) == (REDIRECT, in_class(frame, DSCP | CE))
    for said in (NOT_ECT, ECT0, ECT1):
        assert unwrapped(datapath, in_class(geneve(way, frame), said)) == (REDIRECT, frame)


@geneve_only
@ways
def test_a_sender_that_knows_no_congestion_loses_the_packet(datapath: Harness, way: tuple[int, int]) -> None:
    before = dropped(datapath)[Reason.MALFORMED]
    frame = in_class(tcp(THERE[way], 1000, HERE[way[0]], 80), DSCP | NOT_ECT)
    assert unwrapped(datapath, in_class(geneve(way, frame), CE)).action == SHOT
    assert dropped(datapath)[Reason.MALFORMED] == before + 1


@geneve_only
@ways
@pytest.mark.parametrize("ecn", range(4))
def test_a_packet_is_wrapped_with_what_it_says_of_congestion(datapath: Harness, way: tuple[int, int], ecn: int) -> None:
    datapath.become(policy=[Allow(KNOWN, egress=True)])
    frame = in_class(tcp(HERE[way[0]], 80, THERE[way], 1000), DSCP | ecn)
    action, left = of_workload(datapath, frame)
    assert (action, class_of(left), class_of(left[-len(frame) :])) == (REDIRECT, ecn, DSCP | ecn)
    assert way[1] == 6 or checksum(left[14:34]) == 0


@geneve_only
@ways
@pytest.mark.parametrize("vni", [301, (CLUSTER + 1 << 16) + 301, CLUSTER << 16, Reserved.HOST])
def test_a_node_does_not_speak_for_another_cluster(datapath: Harness, way: tuple[int, int], vni: int) -> None:
    before = dropped(datapath)[Reason.TUNNEL_IDENTITY]
    assert unwrapped(datapath, geneve(way, tcp(THERE[way], 1000, HERE[way[0]], 80), vni)).action == SHOT
    assert dropped(datapath)[Reason.TUNNEL_IDENTITY] == before + 1


def of_workload(datapath: Harness, packet: bytes) -> Ran:
    return datapath.sent(packet, datapath.devices[0])


@families
@pytest.mark.parametrize("target", [OUTER_THERE, OUTSIDE, OUTER_HERE], ids=["a node", "the outside", "its own host"])
def test_what_a_workload_has_wrapped_itself_gets_to_no_node(
    datapath: Harness, family: int, target: dict[int, str]
) -> None:
    before = dropped(datapath)[Reason.TUNNEL_FORBIDDEN]
    assert of_workload(datapath, udp(HERE[family], 50000, target[family], PORT, bytes(60))).action == SHOT
    assert dropped(datapath)[Reason.TUNNEL_FORBIDDEN] == before + 1


def test_nor_does_it_in_fragments(datapath: Harness) -> None:
    head = struct.pack("!HHHH", 50000, PORT, 48, 0)
    first = ip(HERE[4], OUTER_THERE[4], socket.IPPROTO_UDP, head + bytes(16), fragment=0x2000)
    later = ip(HERE[4], OUTER_THERE[4], socket.IPPROTO_UDP, bytes(24), fragment=3)
    assert of_workload(datapath, first).action == SHOT
    before = dropped(datapath)[Reason.FRAGMENT_UNKNOWN]
    assert of_workload(datapath, later).action == SHOT
    assert dropped(datapath)[Reason.FRAGMENT_UNKNOWN] == before + 1


@families
def test_tunnels_of_workloads_among_each_other_are_not_forbidden(datapath: Harness, family: int) -> None:
    before = dropped(datapath)[Reason.TUNNEL_FORBIDDEN]
    of_workload(datapath, udp(HERE[family], 50000, THERE[family, 4], PORT, bytes(60)))
    assert dropped(datapath)[Reason.TUNNEL_FORBIDDEN] == before


class Served:
    """Port 30080 of this host is a service for the outside, whose backends are the workloads of the other node."""

    def __init__(self, datapath: Harness, services: Services) -> None:
        self.datapath, self.services = datapath, services

    def open(self, way: tuple[int, int], protocol: int) -> None:
        host = OUTER_HERE[way[0]]
        self.services.serve(host, 30080, [at(THERE[way], 8080)], protocol=protocol, scope=OUTSIDE_ONLY)

    def arrives(self, packet: bytes) -> Ran:
        return unwrapped(self.datapath, packet)

    def goes_in(self, packet: bytes) -> Ran:
        overlay, wire = socket.if_nametoindex("overlay"), socket.if_nametoindex("wire")
        return self.datapath.try_on(self.datapath.by_name["to_overlay"], packet, overlay, wire)

    def comes_out(self, packet: bytes) -> Ran:
        overlay = socket.if_nametoindex("overlay")
        return self.datapath.try_on(self.datapath.by_name["from_overlay"], packet, overlay, overlay, KNOWN)

    def leaves(self, packet: bytes) -> Ran:
        overlay, wire = socket.if_nametoindex("overlay"), socket.if_nametoindex("wire")
        return self.datapath.try_on(self.datapath.by_name["to_netdev"], packet, wire, overlay)


@pytest.fixture
def served(datapath: Harness) -> Iterator[Served]:
    devices, translations = DevicesTable(datapath.maps), datapath.maps.open("translations")
    rows = {"wire": OUTER_HERE, "overlay": ROUTER}
    devices.write(
        {name: DeviceRow(DeviceFlag.SERVICES, IPv4Address(of[4]), IPv6Address(of[6])) for name, of in rows.items()}, ()
    )
    services = Services(datapath.maps)
    services.clear()
    yield Served(datapath, services)
    services.clear()
    translations.delete(translations.read()[0])
    devices.write({}, list(devices.live().rows))


@ways
@geneve_only
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_a_client_outside_is_served_through_the_tunnel(served: Served, way: tuple[int, int], protocol: int) -> None:
    served.open(way, protocol)
    client, host, backend, router = OUTSIDE[way[0]], OUTER_HERE[way[0]], THERE[way], ROUTER[way[0]]
    inside = served.goes_in(served.arrives(packet(protocol, client, 5000, host, 30080)).packet).packet
    left = inside[50 if way[1] == 4 else 70 :]
    source, port, *target = ends(left)
    assert (source, target, is_whole(left)) == (router, [backend, 8080], True)
    back = served.comes_out(packet(protocol, backend, 8080, router, port, SYN | ACK))
    assert (back.action, ends(back.packet)) == (UNSPEC, (backend, 8080, client, 5000))
    answer = served.leaves(back.packet)
    assert (answer.action, ends(answer.packet)) == (UNSPEC, (host, 30080, client, 5000))
    assert is_whole(answer.packet)


def test_no_mutation_of_a_packet_does_more_than_pass_go_on_or_drop(served: Served) -> None:
    served.datapath.become(policy=[Allow(KNOWN, egress=way) for way in (False, True)])
    survive(served.datapath, list(_tries(served)), {UNSPEC, SHOT, REDIRECT})


def _tries(served: Served) -> Iterator[tuple[bytes, Way]]:
    """Packets, and the way that each takes."""
    datapath = served.datapath
    lxc1, overlay = socket.if_nametoindex("lxc1"), socket.if_nametoindex("overlay")

    def is_told(packet: bytes) -> Ran:
        return datapath.received(packet, datapath.devices[0], ingress_ifindex=overlay, mark=KNOWN)

    def is_sent(packet: bytes) -> Ran:
        return datapath.try_on(datapath.by_name["to_overlay"], packet, overlay)

    def is_forwarded(packet: bytes) -> Ran:
        return datapath.try_on(datapath.by_name["to_overlay"], packet, overlay, lxc1)

    def is_a_workloads(packet: bytes) -> Ran:
        return of_workload(datapath, packet)

    for way, there in THERE.items():
        here, router = HERE[way[0]], ROUTER[way[0]]
        for own, send in ((here, is_forwarded), (here, is_a_workloads), (router, is_sent)):
            for frame in frames(there, 1000, own, 80):
                yield frame, served.comes_out
                if len(frame) <= LARGE:
                    yield geneve(way, frame), served.arrives
            for frame in frames(own, 80, there, 1000):
                yield frame, send
        for frame in frames(there, 1000, here, 80):
            yield frame, is_told
        yield from _of_clients(served, way)


def _of_clients(served: Served, way: tuple[int, int]) -> Iterator[tuple[bytes, Way]]:
    """Of clients outside, and what goes on of it, with errors about it."""
    client, host, backend, router = OUTSIDE[way[0]], OUTER_HERE[way[0]], THERE[way], ROUTER[way[0]]
    for protocol in (TCP, UDP, SCTP):
        served.open(way, protocol)
    for frame in frames(client, 5000, host, 30080):
        yield frame, served.arrives
        came = served.arrives(frame)
        if came.action == UNSPEC:
            yield came.packet, served.goes_in
            served.goes_in(came.packet)
    ports = sorted(set(served.datapath.maps.open("translations").read()[0]["source_port"].tolist()))
    assert ports
    for frame in errors(client, host, frames(host, 30080, client, 5000)):
        yield frame, served.arrives
    for port in ports[:4]:
        answers = list(frames(backend, 8080, router, socket.ntohs(port)))
        for frame in answers:
            yield frame, served.comes_out
        for frame in errors(backend, router, frames(router, socket.ntohs(port), backend, 8080)):
            yield frame, served.comes_out
