"""A host that clients come to and that has a backend itself: what it sends to another one, and is brought by it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from reconciler.bpf import bpffs
from reconciler.kernel import netns
from reconciler.kernel.devices import DevicesTable
from reconciler.model.datapath import EndpointRow, IpcacheFlag, TunnelRow
from reconciler.model.identity import Reserved
from reconciler.model.outside import DeviceFlag, DeviceRow
from reconciler.observe import counters
from reconciler.observe.flow import Reason

from .brought import GENEVE, IPIP, OPTION, in_geneve, in_ipip, with_option
from .conftest import OPTIONS
from .gate import ends
from .harness import Address, Device, Harness, Network, Ran, loaded_at
from .packets import SYN, TCP, UDP
from .services import OUTSIDE, Services
from .shop import at, packet

HERE, THERE = {4: "10.1.0.1", 6: "fd00:1::1"}, {4: "10.9.0.7", 6: "fd00:9::7"}  # workloads
NODE, OTHER = {4: "192.0.2.1", 6: "2001:db8:1::1"}, {4: "192.0.2.2", 6: "2001:db8:1::2"}
CLIENT, STRANGER = {4: "203.0.113.9", 6: "2001:db8::9"}, {4: "203.0.113.66", 6: "2001:db8::66"}
KNOWN = DeviceRow(DeviceFlag.NOTHING, IPv4Address("192.0.2.77"), IPv6Address("2001:db8:1::77"))  # this host, as a node
OTHER_MAC = "02:00:00:00:0b:01"
NODE_PORT, PORT = 30080, 8080
LOCAL, DIRECT = 1 << 1, 1 << 4  # BACKEND_LOCAL, BACKEND_DIRECT
WAYS = {"option": (OPTION, False), "ipip": (IPIP, False), "geneve": (GENEVE, False), "geneve-overlay": (GENEVE, True)}
PLACE = f"/run/netns/pt-dd{os.getpid()}"


class Sides:
    """This host as the one that a client comes to, and as the one that has the backend."""

    def __init__(self, datapath: Harness, options: Mapping[str, Any], how: int, overlay: bool) -> None:
        self.datapath, self.options, self.how, self.overlay = datapath, options, how, overlay
        self.services = Services(datapath.maps)
        self.wire = socket.if_nametoindex("wire")

    def open(self, version: int, *, protocol: int = TCP) -> None:
        backend = at(THERE[version], PORT)
        self.services.serve(NODE[version], NODE_PORT, [backend], protocol=protocol, scope=OUTSIDE)
        self.services.know(backend, protocol, DIRECT)

    def arrives(self, frame: bytes) -> Ran:
        program = self.datapath.by_name["from_netdev"]
        return self.datapath.try_on(program, frame, self.wire, ingress_ifindex=self.wire)

    def leaves(self, frame: bytes, *, forwarded: bool = True) -> Ran:
        program = self.datapath.by_name["to_netdev"]
        ingress = self.datapath.devices[0].ifindex if forwarded else 0
        return self.datapath.try_on(program, frame, self.wire, ingress_ifindex=ingress)

    def wrapped(self, asked: bytes, sent: bytes, front: tuple[str, int], source: str, opens: bool) -> bytes:
        """What node `source` makes of a client's packet; `sent` is the same for the backend."""
        backend, port = ends(sent)[2:]
        version = 6 if ":" in backend else 4
        target = (OTHER if backend == THERE[version] else NODE)[4] if self.overlay else backend
        if self.how == IPIP:
            return in_ipip(source, target, asked, port)
        if self.how == GENEVE:
            return in_geneve(source, target, sent, front)
        return with_option(sent, front) if opens else sent

    def outer(self, version: int, of: dict[int, str] = NODE) -> str:
        return of[4 if self.overlay else version]

    def brings(self, version: int, protocol: int, flags: int = SYN, *, source: str = "", port: int = NODE_PORT) -> Ran:
        """The other node brings a client's packet for its node port to the workload here."""
        front = OTHER[version], port
        asked = packet(protocol, CLIENT[version], 5000, *front, flags)
        sent = packet(protocol, CLIENT[version], 5000, HERE[version], PORT, flags)
        opens = protocol == UDP or bool(flags & SYN)
        return self.arrives(self.wrapped(asked, sent, front, source or self.outer(version, OTHER), opens))

    def dropped(self, reason: Reason) -> int:
        return counters.read(self.datapath.maps.open("counters")).by_reason[reason].packets


@contextmanager
def loaded_sides(way: str, **settings: int) -> Iterator[Sides]:
    """A workload's device, and one towards the other node and the client. `way`: one of WAYS; `settings`: options."""
    root = bpffs.MOUNT_POINT / f"pt-{os.getpid()}-direct"
    how, overlay = WAYS[way]
    options = {
        **OPTIONS,
        "direct_return": how,
        "overlay": overlay,
        "geneve": overlay,
        "tunnel_port": 6081 * overlay,
        **settings,
    }
    netns.create(PLACE)
    try:
        with netns.inside(PLACE):
            device = _devices()
            with loaded_at(root, (device,), options) as harness:
                yield Sides(harness, options, how, overlay)
    finally:
        netns.remove(PLACE)


@contextmanager
def as_new(sides: Sides) -> Iterator[Sides]:
    """Without flows and services; the thread is in the namespace of the devices."""
    datapath = sides.datapath
    with netns.inside(PLACE):
        datapath.reset()
        _become(datapath, sides.overlay)
        sides.services.clear()
        row = DeviceRow(DeviceFlag.SERVICES, IPv4Address(NODE[4]), IPv6Address(NODE[6]))
        DevicesTable(datapath.maps).write({"wire": row}, ())
        yield sides
        sides.services.clear()
        for name in ("translations", "passing4", "passing6", "ways4", "ways6", "path_mtus", "backend_ports"):
            map_ = datapath.maps.open(name)
            map_.delete(map_.read()[0])
        DevicesTable(datapath.maps).write({}, ("wire", "lo"))
        datapath.generation.finish()


def _devices() -> Device:
    for name in ("lxc1", "wire", "overlay"):
        run_ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        run_ip("link", "set", f"{name}-peer", "up")
        run_ip("link", "set", name, "up")
    for version, length in ((4, 24), (6, 64)):
        Path(f"/proc/sys/net/ipv{version}/conf/wire/forwarding").write_text("1")
        run_ip("address", "add", f"{NODE[version]}/{length}", "dev", "wire", *["nodad"] * (version == 6))
        run_ip("route", "add", THERE[version], "via", OTHER[version], "dev", "wire")
        run_ip("neighbour", "replace", OTHER[version], "lladdr", OTHER_MAC, "dev", "wire")
    index, mac = socket.if_nametoindex("lxc1"), "02:00:00:00:00:01"
    return Device("lxc1", index, mac, IPv4Address(HERE[4]), IPv6Address(HERE[6]), 301)


def run_ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _become(datapath: Harness, overlay: bool) -> None:
    (device,) = datapath.devices
    ipcache: dict[Network | Address, tuple[int, int]] = {IPv4Network("0.0.0.0/0"): (2, 0), IPv6Network("::/0"): (2, 0)}
    tunnels: dict[Network, TunnelRow] = {}
    way = TunnelRow("overlay", IPv4Address(OTHER[4]), IPv4Address(NODE[4]))
    for kind in (IPv4Address, IPv6Address):
        version = 4 if kind is IPv4Address else 6
        ipcache[kind(NODE[version])] = (Reserved.HOST, IpcacheFlag.HOST)
        ipcache[kind(OTHER[version])] = (Reserved.REMOTE_NODE, 0)
        ipcache[kind(HERE[version])] = (device.identity, IpcacheFlag.LOCAL)
        ipcache[kind(THERE[version])] = (device.identity + 1, 0)
    if overlay:
        tunnels = {IPv4Network("10.9.0.0/24"): way, IPv6Network("fd00:9::/64"): way}
    endpoints: dict[Address, EndpointRow] = {
        address: EndpointRow("lxc1", device.mac, device.identity) for address in (device.address4, device.address6)
    }
    datapath.become(endpoints=endpoints, ipcache=ipcache, tunnels=tunnels)
