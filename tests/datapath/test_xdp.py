"""The program at a device's XDP hook: flows that go through this host, what it hands over, and who is not heard."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_network

import numpy as np
import pytest

from reconciler.bpf import programs
from reconciler.bpf.pins import program_path
from reconciler.observe import counters
from reconciler.observe.flow import Reason

from .gate import HOST, WORLD, ends, is_whole
from .harness import Harness, Ran
from .mutations import Way, errors, frames, survive
from .packets import ACK, FIN, SCTP, SYN, TCP, UDP, checksum, echo, tcp
from .road import BACKEND_MAC, CLIENT_MAC, Road, made_road, with_last_hop
from .shop import ELSEWHERE, packet

families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP])
DROP, PASS, TX = 1, 2, 3  # enum xdp_action
XDP_MD = struct.Struct("=6I")


class Early(Road):
    """The road's device also has the program at XDP, natively."""

    def early(self, frame: bytes) -> Ran:
        context = XDP_MD.pack(0, len(frame), 0, self.device.ifindex, 0, 0)
        ran = programs.run(self.datapath.by_name["at_device"], frame, context)
        return Ran(ran.result, ran.packet)

    def begun(self, version: int, protocol: int) -> tuple[bytes, int]:
        """A flow as the other programs begin it: its next packet, and the port that the backend sees."""
        port = ends(self.begin(version, protocol))[1]
        return self.asks(version, protocol), port


@pytest.fixture
def shop(datapath: Harness, namespace: str) -> Iterator[Early]:
    with made_road(datapath, namespace) as made:
        early = Early(made.datapath)
        early.services, early.namespace = made.services, made.namespace
        ifname = early.device.ifname
        pin = program_path(datapath.root, "at_device", datapath.datapath.program_rows()["at_device"].digest)
        early.set_up(f"link set {ifname} xdpdrv pinned {pin}")
        yield early
        for name in ("passing4", "passing6"):
            map_ = datapath.maps.open(name)
            map_.delete(map_.read()[0])
        early.set_up(f"link set {ifname} xdpdrv off")


@families
@protocols
def test_a_known_flow_goes_through_in_both_directions(shop: Early, version: int, protocol: int) -> None:
    again, port = shop.begun(version, protocol)
    client, host, backend = WORLD[version], HOST[version], ELSEWHERE[version]
    action, left = shop.early(again)
    assert (action, ends(left), is_whole(left)) == (TX, (host, port, backend, 8080), True)
    assert left[:6].hex(":") == BACKEND_MAC
    action, back = shop.early(packet(protocol, backend, 8080, host, port, ACK))
    assert (action, ends(back), is_whole(back)) == (TX, (host, 30080, client, 5000), True)
    assert back[:6].hex(":") == CLIENT_MAC
    hops = 22 if version == 4 else 21
    assert (left[hops], back[hops]) == (63, 63)


@families
@protocols
def test_so_does_one_that_the_stack_had_a_hand_in(shop: Early, version: int, protocol: int) -> None:
    again, port = shop.begun(version, protocol)
    shop.leaves(shop.arrives(with_last_hop(again))[1])
    assert shop.rows() == 4
    action, left = shop.early(again)
    assert (action, ends(left), is_whole(left)) == (TX, (HOST[version], port, ELSEWHERE[version], 8080), True)
    action, back = shop.early(shop.answers(version, protocol, port))
    assert (action, ends(back), is_whole(back)) == (TX, (HOST[version], 30080, WORLD[version], 5000), True)


@families
def test_it_does_to_a_packet_what_the_other_programs_do(shop: Early, version: int) -> None:
    again, _ = shop.begun(version, TCP)
    assert ends(shop.early(again)[1]) == ends(shop.leaves(shop.arrives(again)[1])[1])


@families
def test_what_begins_is_handed_over(shop: Early, version: int) -> None:
    again, _ = shop.begun(version, TCP)
    association, _ = shop.begun(version, SCTP)
    for frame in (
        association,
        tcp(WORLD[version], 5001, HOST[version], 30080),
        tcp(WORLD[version], 5000, HOST[version], 30080, SYN),
        tcp(WORLD[version], 5000, HOST[version], 22, ACK),
        echo(WORLD[version], HOST[version]),
    ):
        assert shop.early(frame) == (PASS, frame)
    assert shop.early(again)[0] == TX


@families
def test_a_flow_to_a_backend_here_is_handed_over(shop: Early, version: int) -> None:
    shop.open(version, shop.address(version))
    shop.arrives(tcp(WORLD[version], 5000, HOST[version], 30080))
    again = tcp(WORLD[version], 5000, HOST[version], 30080, ACK)
    assert shop.early(again) == (PASS, again)


@families
def test_a_flow_whose_backend_died_is_handed_over(shop: Early, version: int) -> None:
    again, _ = shop.begun(version, TCP)
    backend = ELSEWHERE[version]
    shop.services.kill(f"[{backend}]:8080" if version == 6 else f"{backend}:8080")
    assert shop.early(again) == (PASS, again)


@families
def test_a_flow_that_begins_again_is_not_sent_where_the_last_one_went(shop: Early, version: int) -> None:
    again, _ = shop.begun(version, TCP)
    assert shop.early(again)[0] == TX
    shop.open(version, shop.address(version))
    first = tcp(WORLD[version], 5000, HOST[version], 30080)
    assert shop.early(first) == (PASS, first)
    shop.arrives(first)
    assert shop.early(again) == (PASS, again)


@families
def test_a_packet_without_a_hop_left_or_to_an_unknown_neighbour_is_handed_over(shop: Early, version: int) -> None:
    again, _ = shop.begun(version, UDP)
    last = bytearray(again)
    last[22 if version == 4 else 21] = 1
    assert shop.early(bytes(last))[0] == PASS
    shop.set_up(f"neighbour del {ELSEWHERE[version]} dev {shop.device.ifname}")
    assert shop.early(again) == (PASS, again)


@families
@protocols
def test_a_packet_whose_checksum_is_left_to_the_device_is_handed_over(shop: Early, version: int, protocol: int) -> None:
    again, port = shop.begun(version, protocol)
    back = packet(protocol, ELSEWHERE[version], 8080, HOST[version], port, ACK)
    for frame in (again, back):
        assert shop.early(_unfinished(frame)) == (PASS, _unfinished(frame))
        assert shop.early(frame)[0] == TX


def _unfinished(frame: bytes) -> bytes:
    """As a sender on veth leaves it: where the checksum belongs there is the sum of the pseudo-header."""
    four = frame[12:14] == b"\x08\x00"
    start = 34 if four else 54
    addresses, protocol = (frame[26:34], frame[23]) if four else (frame[22:54], frame[20])
    pseudo = addresses + struct.pack("!IxxxB", len(frame) - start, protocol)
    at = start + (16 if protocol == TCP else 6)
    return frame[:at] + struct.pack("!H", ~checksum(pseudo) & 0xFFFF) + frame[at + 2 :]


@families
def test_a_flow_that_ends_here_ends_for_the_other_programs_too(shop: Early, version: int) -> None:
    _, port = shop.begun(version, TCP)
    shop.early(tcp(WORLD[version], 5000, HOST[version], 30080, FIN | ACK))
    shop.early(tcp(ELSEWHERE[version], 8080, HOST[version], port, FIN | ACK))
    values = shop.datapath.maps.open("translations").read()[1]
    assert values["closing"].tolist() == [3] * 2


@families
def test_who_is_denied_is_dropped_and_counted(shop: Early, version: int) -> None:
    network = ip_network({4: "203.0.113.8/29", 6: "2001:db8::8/125"}[version])
    map_ = shop.datapath.maps.open(f"prefilter{version}")
    raw = struct.pack("=I", network.prefixlen) + network.network_address.packed
    key = np.frombuffer(raw, map_.key_dtype)
    map_.update(key, np.zeros(1, map_.value_dtype))
    before = _counted(shop)
    try:
        assert shop.early(echo(WORLD[version], HOST[version]))[0] == DROP
        assert shop.early(echo(ELSEWHERE[version], HOST[version]))[0] == PASS
    finally:
        map_.delete(key)
    assert _counted(shop) == before + 1


def _counted(shop: Early) -> int:
    return counters.read(shop.datapath.maps.open("counters")).by_reason[Reason.PREFILTERED].packets


def test_no_mutation_of_a_packet_does_more_than_go_through_or_pass_as_it_is(shop: Early) -> None:
    def early(frame: bytes) -> Ran:
        ran = shop.early(frame)
        assert len(ran.packet) == len(frame)
        assert ran.action == TX or ran.packet == frame
        return ran

    tries: list[tuple[bytes, Way]] = []
    for version in (4, 6):
        for protocol in (TCP, UDP):
            shop.begun(version, protocol)
        tries += [(frame, early) for frame in frames(WORLD[version], 5000, HOST[version], 30080)]
        tries += [
            (frame, early)
            for frame in errors(
                ELSEWHERE[version], HOST[version], frames(HOST[version], 50000, ELSEWHERE[version], 8080)
            )
        ]
    survive(shop.datapath, tries, {PASS, TX}, drop=DROP)
