"""What is not forwarded past the stack: packets that it has to have a hand in, and their flows from then on."""

from __future__ import annotations

import socket

import pytest

from reconciler.bpf.programs import TCX_INGRESS, attach_tcx
from reconciler.bpf.syscalls import held
from reconciler.kernel.devices import DevicesTable
from reconciler.model.outside import DeviceFlag, DeviceRow

from .gate import HOST, WORLD, ends
from .harness import SHOT, UNSPEC, eventually
from .packets import SCTP, SYN, TCP, UDP, tcp
from .road import HOP, Road, with_last_hop
from .shop import ELSEWHERE, LOAD_BALANCER, packet

families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
NO_PORT = 13  # enum reason
LARGE = 2000  # bytes of data


@families
@protocols
@pytest.mark.parametrize("asking", [True, False], ids=["request", "answer"])
def test_a_flow_goes_on_when_the_stack_has_to_help(road: Road, version: int, protocol: int, asking: bool) -> None:
    left = road.begin(version, protocol)
    answer = road.answers(version, protocol, ends(left)[1])
    wanted = [ends(left), ends(road.arrives(answer)[1])]
    handed = road.arrives(with_last_hop(road.asks(version, protocol) if asking else answer))
    assert (handed.action, handed.packet[HOP[version]]) == (UNSPEC, 1)
    assert ends(handed.packet)[2:] == (wanted[0] if asking else wanted[1])[2:]
    assert ends(road.leaves(handed.packet)[1]) == wanted[0 if asking else 1]
    assert road.rows() == 4
    for sent, there in zip((road.asks(version, protocol), answer), wanted, strict=True):
        action, got = road.arrives(sent)
        assert action == UNSPEC
        assert ends(road.leaves(got)[1]) == there


@families
def test_the_stack_cannot_help_with_two_flows_of_the_same_ends(road: Road, version: int) -> None:
    road.open(version, ELSEWHERE[version])
    for front, action in (((HOST[version], 30080), UNSPEC), ((LOAD_BALANCER[version], 80), SHOT)):
        asked = tcp(WORLD[version], 5000, *front)
        road.arrives(asked)
        assert road.arrives(with_last_hop(asked)).action == action
    assert road.reasons() == [NO_PORT]


@families
def test_what_is_too_large_for_its_way_is_left_to_the_stack(road: Road, version: int) -> None:
    road.begin(version, UDP)
    large = packet(UDP, WORLD[version], 5000, HOST[version], 30080) + bytes(LARGE)
    assert road.arrives(large).action == UNSPEC


@families
def test_so_is_what_has_no_route(road: Road, version: int) -> None:
    road.set_up(f"route del {ELSEWHERE[version]} dev {road.device.ifname}")
    road.open(version, ELSEWHERE[version])
    assert road.arrives(road.asks(version, TCP, SYN)).action == UNSPEC
    assert road.rows() == 2  # the others come when it leaves


@families
def test_so_is_what_leaves_by_a_device_without_an_address(road: Road, version: int) -> None:
    DevicesTable(road.datapath.maps).write({road.device.ifname: DeviceRow(DeviceFlag.SERVICES)}, ())
    road.open(version, ELSEWHERE[version])
    assert road.arrives(road.asks(version, TCP, SYN)).action == UNSPEC


@families
def test_so_is_a_frame_for_somebody_else(road: Road, version: int) -> None:
    road.open(version, ELSEWHERE[version])
    frame = bytes.fromhex("020000000099") + road.asks(version, TCP, SYN)[6:]
    assert road.arrives(frame).action == UNSPEC


@families
@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x00\x07"], ids=["untagged", "tagged"])
def test_so_is_a_frame_with_a_tag_and_none_without(road: Road, version: int, tag: bytes) -> None:
    """Real frames, as a test run has none of whose tag the kernel has taken off."""
    road.open(version, ELSEWHERE[version])
    frame = road.asks(version, TCP, SYN)
    attached = attach_tcx(road.datapath.by_name["from_netdev"], road.device.ifindex, TCX_INGRESS)
    with held(attached), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((f"eth{road.device.ifname[-1]}", 0))
        sender.send(frame[:12] + tag + frame[12:])
        eventually(lambda: road.rows() == 2)
    keys, _ = road.datapath.maps.open("translations").read()
    assert sorted(keys["reply"].tolist()) == ([0, 1] if tag else [1, 1])  # what is forwarded comes in both ways


@families
def test_another_address_of_the_device_is_left_to_the_stack(road: Road, version: int) -> None:
    road.begin(version, TCP)
    DevicesTable(road.datapath.maps).write({road.device.ifname: DeviceRow(DeviceFlag.SERVICES)}, ())
    eventually(lambda: road.arrives(road.asks(version, TCP)).action == UNSPEC)
