"""Packets between nodes: what is taken out of Geneve, and that no mutation of any gets further than it may."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from reconciler.bpf import bpffs
from reconciler.kernel import netns
from reconciler.model.datapath import EndpointRow, IpcacheFlag, TunnelRow
from reconciler.model.identity import Reserved
from reconciler.observe import counters
from reconciler.observe.flow import Reason

from .conftest import OPTIONS
from .harness import REDIRECT, SHOT, UNSPEC, Address, Device, Harness, Network, Ran, loaded_at
from .packets import echo, ip, tcp, udp

CLUSTER = 7
KNOWN = (CLUSTER << 16) + 301
PORT = 6081
HERE = {4: "10.1.0.2", 6: "fd00:1::2"}
ROUTER = {4: "10.1.0.1", 6: "fd00:1::1"}
OUTER_HERE, OUTER_THERE = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
OUTSIDE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
# (family of the inner packet, of the outer ones) -> a workload of the node behind the tunnel
THERE = {(4, 4): "10.2.0.7", (6, 4): "fd00:2::7", (4, 6): "10.3.0.7", (6, 6): "fd00:3::7"}
CIDRS = {(4, 4): "10.2.0.0/24", (6, 4): "fd00:2::/64", (4, 6): "10.3.0.0/24", (6, 6): "fd00:3::/64"}
MUTATIONS = 5_000  # of each mode
SHORTEST = 54  # that a test run takes: an IPv6 header
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
        ipcache=world | dict.fromkeys(hosts, (Reserved.HOST, IpcacheFlag.HOST)),
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


def dropped(datapath: Harness) -> dict[Reason, int]:
    """Packets so far, by reason."""
    found = counters.read(datapath.maps.open("counters"))
    return {reason: count.packets for reason, count in found.by_reason.items()}


@geneve_only
@ways
def test_what_the_right_node_wrapped_comes_out_as_it_was(datapath: Harness, way: tuple[int, int]) -> None:
    frame = tcp(THERE[way], 1000, HERE[way[0]], 80)
    assert unwrapped(datapath, geneve(way, frame)) == (REDIRECT, frame)


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


def test_no_mutation_of_a_packet_does_more_than_pass_go_on_or_drop_and_drops_are_counted(datapath: Harness) -> None:
    dice = random.Random(20261122)
    tries = list(_tries(datapath))
    before, shot = sum(dropped(datapath).values()), 0
    actions = set()
    for _ in range(MUTATIONS):
        seed, attempt = dice.choice(tries)
        packet = bytearray(seed)
        for _ in range(dice.randint(0, 4)):
            packet[dice.randrange(14, len(packet))] = dice.randrange(256)
        shortest = min(SHORTEST, len(packet))
        cut = packet[: dice.randint(shortest, len(packet))] if dice.random() < 0.2 else packet
        action = attempt(bytes(cut)).action
        actions.add(action)
        shot += action == SHOT
    assert {UNSPEC, SHOT} <= actions <= {UNSPEC, REDIRECT, SHOT}
    assert sum(dropped(datapath).values()) == before + shot


def _tries(datapath: Harness) -> Iterator[tuple[bytes, Callable[[bytes], Ran]]]:
    """Packets, and the way that each takes."""
    lxc1, overlay = socket.if_nametoindex("lxc1"), socket.if_nametoindex("overlay")

    def comes_out(packet: bytes) -> Ran:
        return datapath.try_on(datapath.by_name["from_overlay"], packet, overlay, overlay, KNOWN)

    def is_sent(packet: bytes) -> Ran:
        return datapath.try_on(datapath.by_name["to_overlay"], packet, overlay)

    def is_forwarded(packet: bytes) -> Ran:
        return datapath.try_on(datapath.by_name["to_overlay"], packet, overlay, lxc1)

    for way, there in THERE.items():
        for own, send in ((HERE[way[0]], is_forwarded), (ROUTER[way[0]], is_sent)):
            for frame in (tcp(there, 1000, own, 80), udp(there, 1000, own, 53), echo(there, own)):
                yield frame, comes_out
                yield geneve(way, frame), lambda packet: unwrapped(datapath, packet)
            for frame in (tcp(own, 80, there, 1000), udp(own, 53, there, 1000), echo(own, there, reply=True)):
                yield frame, send
