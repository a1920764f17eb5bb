"""Direct return: how a client's packet is told what the client knows, and how its backend's answer leaves with it."""

from __future__ import annotations

import os
import socket
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
from reconciler.observe import counters
from reconciler.observe.flow import Reason

from .brought import GENEVE, IPIP, OPTION, in_geneve, in_ipip, with_option
from .conftest import OPTIONS
from .gate import ends, error, is_whole
from .harness import REDIRECT, SHOT, UNSPEC, Address, Device, Harness, Network, Ran, loaded_at
from .packets import ACK, FIN, SYN, TCP, UDP, checksum, ethernet, tcp, udp
from .services import OUTSIDE, Services
from .shop import at, packet

HERE, THERE = {4: "10.1.0.1", 6: "fd00:1::1"}, {4: "10.9.0.7", 6: "fd00:9::7"}  # workloads
NODE, OTHER = {4: "192.0.2.1", 6: "2001:db8:1::1"}, {4: "192.0.2.2", 6: "2001:db8:1::2"}
CLIENT, STRANGER = {4: "203.0.113.9", 6: "2001:db8::9"}, {4: "203.0.113.66", 6: "2001:db8::66"}
OTHER_MAC = "02:00:00:00:0b:01"
NODE_PORT, PORT = 30080, 8080
DIRECT = 1 << 4  # BACKEND_DIRECT
MTU = 1400
WAYS = {"option": (OPTION, False), "ipip": (IPIP, False), "geneve": (GENEVE, False), "geneve-overlay": (GENEVE, True)}
families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP])


class Sides:
    """This host as the one that a client comes to, and as the one that has the backend."""

    def __init__(self, datapath: Harness, how: int, overlay: bool) -> None:
        self.datapath, self.how, self.overlay = datapath, how, overlay
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


@pytest.fixture(scope="module", params=WAYS, ids=str)
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[Harness, int, bool]]:
    """A workload's device, and one towards the other node and the client."""
    path, root = f"/run/netns/pt-dd{os.getpid()}", bpffs.MOUNT_POINT / f"pt-{os.getpid()}-direct"
    how, overlay = WAYS[request.param]
    options = {**OPTIONS, "direct_return": how, "overlay": overlay, "geneve": overlay, "tunnel_port": 6081 * overlay}
    netns.create(path)
    try:
        with netns.inside(path):
            device = _devices()
        with loaded_at(root, (device,), options) as harness:
            yield harness, how, overlay
    finally:
        netns.remove(path)


def _devices() -> Device:
    for name in ("lxc1", "wire", "overlay"):
        _ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        _ip("link", "set", f"{name}-peer", "up")
        _ip("link", "set", name, "up")
    for version, length in ((4, 24), (6, 64)):
        Path(f"/proc/sys/net/ipv{version}/conf/wire/forwarding").write_text("1")
        _ip("address", "add", f"{NODE[version]}/{length}", "dev", "wire", *["nodad"] * (version == 6))
        _ip("route", "add", THERE[version], "via", OTHER[version], "dev", "wire")
        _ip("neighbour", "replace", OTHER[version], "lladdr", OTHER_MAC, "dev", "wire")
    index, mac = socket.if_nametoindex("lxc1"), "02:00:00:00:00:01"
    return Device("lxc1", index, mac, IPv4Address(HERE[4]), IPv6Address(HERE[6]), 301)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def sides(loaded: tuple[Harness, int, bool]) -> Iterator[Sides]:
    datapath, how, overlay = loaded
    with netns.inside(f"/run/netns/pt-dd{os.getpid()}"):
        datapath.reset()
        _become(datapath, overlay)
        made = Sides(datapath, how, overlay)
        made.services.clear()
        row = DeviceRow(DeviceFlag.SERVICES, IPv4Address(NODE[4]), IPv6Address(NODE[6]))
        DevicesTable(datapath.maps).write({"wire": row}, ())
        yield made
        made.services.clear()
        translations = datapath.maps.open("translations")
        translations.delete(translations.read()[0])
        DevicesTable(datapath.maps).write({}, ("wire",))
        datapath.generation.finish()


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
    if overlay:
        tunnels = {IPv4Network("10.9.0.0/24"): way, IPv6Network("fd00:9::/64"): way}
    endpoints: dict[Address, EndpointRow] = {
        address: EndpointRow("lxc1", device.mac, device.identity) for address in (device.address4, device.address6)
    }
    datapath.become(endpoints=endpoints, ipcache=ipcache, tunnels=tunnels)


def _same(found: bytes, wanted: bytes) -> bool:
    """But for what a hash decides: the source port of an outer UDP header."""
    place = 34 if found[12:14] == b"\x08\x00" else 54
    if found[14 + (9 if place == 34 else 6)] == UDP and found[place + 2 : place + 4] == b"\x17\xc1":
        found = found[:place] + wanted[place : place + 2] + found[place + 2 :]
    return found[12:] == wanted[12:]


@families
@protocols
def test_a_packet_goes_on_with_its_own_source_and_what_the_client_knows(
    sides: Sides, version: int, protocol: int
) -> None:
    sides.open(version, protocol=protocol)
    for flags in (SYN, ACK):
        asked = packet(protocol, CLIENT[version], 5000, NODE[version], NODE_PORT, flags)
        sent = packet(protocol, CLIENT[version], 5000, THERE[version], PORT, flags)
        opens = protocol == UDP or flags == SYN
        wanted = sides.wrapped(asked, sent, (NODE[version], NODE_PORT), sides.outer(version), opens)
        action, left = sides.arrives(asked)
        assert action == (UNSPEC if sides.how == OPTION else REDIRECT)
        assert _same(left, wanted)
        assert sides.how != OPTION or sides.leaves(left) == (UNSPEC, left)
    assert len(sides.datapath.maps.open("translations").read()[0]) == 1


@families
@protocols
def test_the_backend_gets_what_its_client_sent_and_answers_as_the_service(
    sides: Sides, version: int, protocol: int
) -> None:
    action, got = sides.brings(version, protocol)
    assert (action, ends(got)) == (REDIRECT, (CLIENT[version], 5000, HERE[version], PORT))
    assert (is_whole(got), got[:6].hex(":")) == (True, sides.datapath.devices[0].mac)
    assert got[22 if version == 4 else 21] == 63
    action, answer = sides.leaves(packet(protocol, HERE[version], PORT, CLIENT[version], 5000, SYN | ACK))
    assert (action, ends(answer)) == (UNSPEC, (OTHER[version], NODE_PORT, CLIENT[version], 5000))
    assert is_whole(answer)


@families
def test_an_error_about_an_answer_reaches_the_backend(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    sides.arrives(udp(CLIENT[version], 5000, NODE[version], NODE_PORT))
    answer = udp(NODE[version], NODE_PORT, CLIENT[version], 5000)
    asked = error(version, STRANGER[version], NODE[version], answer)
    action, left = sides.arrives(asked)
    assert action == (UNSPEC if sides.how == OPTION else REDIRECT)
    here = error(version, STRANGER[version], OTHER[version], udp(OTHER[version], NODE_PORT, CLIENT[version], 5000))
    sent = error(version, STRANGER[version], HERE[version], udp(HERE[version], PORT, CLIENT[version], 5000))
    if sides.how == OPTION:  # it is for the backend as it is
        assert ends(left)[2] == THERE[version]
        return
    sides.brings(version, UDP)
    front = OTHER[version], NODE_PORT
    source, target = sides.outer(version, OTHER), NODE[4] if sides.overlay else HERE[version]
    frame = in_ipip(source, target, here, PORT) if sides.how == IPIP else in_geneve(source, target, sent, front)
    action, got = sides.arrives(frame)
    assert (action, ends(got)[2], is_whole(got)) == (REDIRECT, HERE[version], True)
    assert ends(got[:14] + got[42 if version == 4 else 62 :]) == (HERE[version], PORT, CLIENT[version], 5000)


@families
def test_an_error_of_the_backend_speaks_of_the_service(sides: Sides, version: int) -> None:
    sides.brings(version, UDP)
    told = sides.leaves(error(version, HERE[version], CLIENT[version], udp(CLIENT[version], 5000, HERE[version], PORT)))
    assert told.action == UNSPEC
    quoted = told.packet[:14] + told.packet[42 if version == 4 else 62 :]
    assert ends(quoted) == (CLIENT[version], 5000, OTHER[version], NODE_PORT)
    assert (ends(told.packet)[0], is_whole(told.packet)) == (OTHER[version], True)


@families
def test_who_is_no_node_is_not_believed(sides: Sides, version: int) -> None:
    before = sides.dropped(Reason.TUNNEL_NODE)
    action, _ = sides.brings(version, TCP, source=sides.outer(version, STRANGER))
    if sides.how == OPTION:  # its packet has no outer source; it can only have answers of its own flow renamed
        assert action == REDIRECT
        return
    assert action == SHOT
    assert sides.dropped(Reason.TUNNEL_NODE) == before + 1
    assert not len(sides.datapath.maps.open("translations").read()[0])


@families
def test_nobody_has_answers_sent_in_the_name_of_strangers(sides: Sides, version: int) -> None:
    front = STRANGER[version], 443
    asked = tcp(CLIENT[version], 5000, *front)
    sent = tcp(CLIENT[version], 5000, HERE[version], PORT)
    assert sides.arrives(sides.wrapped(asked, sent, front, sides.outer(version, OTHER), True)).action == SHOT
    assert sides.datapath.events()["reason"].tolist() == [Reason.NO_FRONTEND]


@families
def test_a_backend_that_is_not_here_gets_nothing(sides: Sides, version: int) -> None:
    front = OTHER[version], NODE_PORT
    gone = {4: "10.1.0.200", 6: "fd00:1::200"}[version]
    asked, sent = tcp(CLIENT[version], 5000, *front), tcp(CLIENT[version], 5000, gone, PORT)
    frame = sides.wrapped(asked, sent, front, sides.outer(version, OTHER), True)
    action, left = sides.arrives(frame)
    assert (action, left) == (UNSPEC, frame) or action == SHOT


@families
def test_one_client_port_never_has_two_names_for_its_peer(sides: Sides, version: int) -> None:
    sides.brings(version, TCP)
    sides.brings(version, TCP, ACK)
    assert sides.brings(version, TCP, port=NODE_PORT + 1).action == SHOT
    assert sides.datapath.events()["reason"].tolist() == [Reason.NO_PORT]
    sides.brings(version, TCP, FIN | ACK)
    sides.leaves(tcp(HERE[version], PORT, CLIENT[version], 5000, FIN | ACK))
    assert sides.brings(version, TCP, port=NODE_PORT + 1).action == REDIRECT


@families
def test_a_flow_goes_on_where_it_was_though_its_service_has_others(sides: Sides, version: int) -> None:
    sides.open(version)
    first = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT))[1]
    sides.services.serve(NODE[version], NODE_PORT, [at(HERE[version], PORT)], scope=OUTSIDE)
    again = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, ACK))[1]
    place = slice(30, 34) if version == 4 else slice(38, 54)
    assert again[place] == first[place]
    sides.services.kill(at(THERE[version], PORT))
    assert sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, ACK)).action == SHOT


@families
def test_what_does_not_fit_the_way_is_told_its_client(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    _ip("link", "set", "wire", "mtu", str(MTU))
    try:
        full = bytes(MTU - (28 if version == 4 else 48) - 4)
        asked = _uncut(udp(CLIENT[version], 5000, NODE[version], NODE_PORT, full))
        action, told = sides.arrives(asked)
        assert (action, is_whole(told)) == (REDIRECT, True)
        assert (told[:6], told[6:12]) == (asked[6:12], asked[:6])
        assert ends(told)[::2] == (NODE[version], CLIENT[version])
        assert MTU - 80 <= int.from_bytes(told[40:42] if version == 4 else told[58:62]) < MTU - 4
        if version == 4:
            asked = udp(CLIENT[4], 5000, NODE[4], NODE_PORT, full)
            assert sides.arrives(asked).action == (UNSPEC if sides.how == OPTION else SHOT)
    finally:
        _ip("link", "set", "wire", "mtu", "1500")


def _uncut(frame: bytes) -> bytes:
    """The same with "do not fragment", long enough not to fit with anything more."""
    if frame[12:14] != b"\x08\x00":
        return frame
    return _with_flags(frame, 0x4000)


def _with_flags(frame: bytes, flags: int) -> bytes:
    head = bytearray(frame[14:34])
    head[6:8], head[10:12] = flags.to_bytes(2), bytes(2)
    head[10:12] = checksum(bytes(head)).to_bytes(2)
    return ethernet(bytes(head) + frame[34:], 0x0800)
