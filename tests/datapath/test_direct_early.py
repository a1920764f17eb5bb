"""Direct return at XDP: a client's packet is wrapped as the other programs wrap it, from the first one on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from reconciler.bpf import programs
from reconciler.bpf.pins import program_path
from reconciler.kernel.devices import DevicesTable
from reconciler.model.outside import DeviceFlag, DeviceRow

from .gate import error
from .harness import Ran
from .mutations import Way, frames, survive
from .packets import ACK, FIN, RST, SYN, TCP, UDP, checksum, class_of, in_class, tcp, udp, uncut
from .services import OUTSIDE
from .shop import at, packet
from .sides import (
    CLIENT,
    DIRECT,
    HERE,
    KNOWN,
    NODE,
    NODE_PORT,
    OTHER,
    OTHER_MAC,
    PORT,
    STRANGER,
    THERE,
    Sides,
    as_new,
    loaded_sides,
    run_ip,
)

DROP, PASS, TX = 1, 2, 3  # enum xdp_action
XDP_MD = struct.Struct("=6I")
families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP])


@pytest.fixture(scope="module")
def loaded() -> Iterator[Sides]:
    with loaded_sides("ipip") as made:
        root = made.datapath.root
        pin = program_path(root, "at_device", made.datapath.datapath.program_rows()["at_device"].digest)
        run_ip("link", "set", "wire", "xdpdrv", "pinned", pin)
        yield made
        run_ip("link", "set", "wire", "xdpdrv", "off")


@pytest.fixture
def sides(loaded: Sides) -> Iterator[Sides]:
    with as_new(loaded) as made:
        for version in (4, 6):
            run_ip("route", "replace", CLIENT[version], "dev", "wire")
        yield made


def early(sides: Sides, frame: bytes) -> Ran:
    context = XDP_MD.pack(0, len(frame), 0, socket.if_nametoindex("wire"), 0, 0)
    ran = programs.run(sides.datapath.by_name["at_device"], frame, context)
    return Ran(ran.result, ran.packet)


def asked(version: int, protocol: int, flags: int = SYN, port: int = 5000) -> bytes:
    return packet(protocol, CLIENT[version], port, NODE[version], NODE_PORT, flags)


@families
@protocols
def test_a_flow_is_wrapped_from_its_first_packet_on(sides: Sides, version: int, protocol: int) -> None:
    sides.open(version, protocol=protocol)
    for flags in (SYN, ACK, ACK):
        action, left = early(sides, asked(version, protocol, flags))
        assert (action, left[:6].hex(":")) == (TX, OTHER_MAC)
        assert left[12:] == sides.arrives(asked(version, protocol, flags)).packet[12:]
    assert len(sides.datapath.maps.open("translations").read()[0]) == 1


@families
def test_what_a_packet_becomes_is_kept_from_the_second_one_on(sides: Sides, version: int) -> None:
    """Many flows of UDP have no more than one."""
    sides.open(version, protocol=UDP)
    kept = []
    for _ in range(3):
        assert early(sides, asked(version, UDP))[0] == TX
        kept.append(len(sides.datapath.maps.open(f"passing{version}").read()[0]))
    assert kept == [0, 1, 1]


@families
def test_what_was_kept_in_an_earlier_tick_is_used_again_if_it_holds(sides: Sides, version: int) -> None:
    sides.open(version)
    passing = sides.datapath.maps.open(f"passing{version}")
    for flags in (SYN, ACK):
        early(sides, asked(version, TCP, flags))
    keys, rows = passing.read()
    for port in (PORT, PORT + 1):  # as it was, and of a backend that had been another one
        rows["hop"]["checked"] -= 1
        rows["ends"]["ports"]["destination"] = socket.htons(port)
        passing.update(keys, rows)
        action, left = early(sides, asked(version, TCP, ACK))
        assert (action, left[12:]) == (TX, sides.arrives(asked(version, TCP, ACK)).packet[12:])
        rows = passing.read()[1]


@families
def test_what_resets_a_connection_that_is_not_known_goes_on_and_leaves_no_row(sides: Sides, version: int) -> None:
    sides.open(version)
    action, left = early(sides, asked(version, TCP, RST))
    assert (action, left[12:]) == (TX, sides.arrives(asked(version, TCP, RST)).packet[12:])
    assert len(sides.datapath.maps.open("translations").read()[0]) == 0


@pytest.mark.parametrize(("version", "source"), [(4, "127.0.0.1"), (4, "224.0.0.5"), (6, "::1"), (6, "ff02::1")])
def test_who_says_to_come_from_where_nobody_is_is_handed_over(sides: Sides, version: int, source: str) -> None:
    sides.open(version)
    forged = packet(TCP, source, 5000, NODE[version], NODE_PORT, SYN)
    assert early(sides, forged) == (PASS, forged)
    assert len(sides.datapath.maps.open("translations").read()[0]) == 0


@families
def test_both_programs_choose_the_same_backend(sides: Sides, version: int) -> None:
    others = [f"{THERE[version][:-1]}{number}" for number in range(1, 9)]
    for backend in others:
        run_ip("route", "replace", backend, "via", OTHER[version], "dev", "wire")
    sides.services.serve(NODE[version], NODE_PORT, [at(one, PORT) for one in others], scope=OUTSIDE)
    for backend in others:
        sides.services.know(at(backend, PORT), TCP, DIRECT)
    chosen = []
    for port in range(6000, 6064):
        left = early(sides, asked(version, TCP, SYN, port)).packet
        translations = sides.datapath.maps.open("translations")
        translations.delete(translations.read()[0])
        assert sides.arrives(asked(version, TCP, SYN, port)).packet[12:] == left[12:]
        chosen.append(left[30:34] if version == 4 else left[38:54])
    assert len(set(chosen)) == len(others)


@families
def test_a_flow_keeps_its_backend_at_either_program(sides: Sides, version: int) -> None:
    sides.open(version)
    sides.arrives(asked(version, TCP))
    sides.services.serve(NODE[version], NODE_PORT, [at(HERE[version], PORT)], scope=OUTSIDE)
    action, left = early(sides, asked(version, TCP, ACK))
    assert (action, left[12:]) == (TX, sides.arrives(asked(version, TCP, ACK)).packet[12:])


@families
def test_what_is_not_for_a_backend_that_answers_is_handed_over(sides: Sides, version: int) -> None:
    sides.services.serve(NODE[version], NODE_PORT, [at(HERE[version], PORT)], scope=OUTSIDE)
    again = asked(version, TCP)
    assert early(sides, again) == (PASS, again)
    sides.services.serve(NODE[version], NODE_PORT, [at(THERE[version], PORT)], scope=OUTSIDE, affinity_s=60)
    sides.services.know(at(THERE[version], PORT), TCP, DIRECT)
    assert early(sides, again) == (PASS, again)


@families
def test_a_dead_backends_flow_is_handed_over(sides: Sides, version: int) -> None:
    """Whoever else the service has: its client is told, and no other backend's host."""
    sides.open(version)
    early(sides, asked(version, TCP))
    other = f"{THERE[version][:-1]}8"
    run_ip("route", "replace", other, "via", OTHER[version], "dev", "wire")
    sides.services.serve(NODE[version], NODE_PORT, [at(other, PORT)], scope=OUTSIDE)
    sides.services.know(at(other, PORT), TCP, DIRECT)
    sides.services.kill(at(THERE[version], PORT))
    again = asked(version, TCP, ACK)
    assert early(sides, again) == (PASS, again)


@families
def test_what_is_wrapped_comes_from_where_other_nodes_know_the_host(sides: Sides, version: int) -> None:
    sides.open(version)
    DevicesTable(sides.datapath.maps).write({"lo": KNOWN}, ())
    left = early(sides, asked(version, TCP)).packet
    assert left[12:] == sides.arrives(asked(version, TCP)).packet[12:]
    address = (KNOWN.address4 if version == 4 else KNOWN.address6).packed
    assert left[26:30] == address if version == 4 else left[22:38] == address


@families
def test_each_packet_is_wrapped_in_its_own_class(sides: Sides, version: int) -> None:
    sides.open(version)
    for flags in (SYN, ACK):
        for value in range(256):
            one = in_class(asked(version, TCP, flags, 5000 + value), value)
            action, left = early(sides, one)
            assert (action, class_of(left), left.endswith(one[14:])) == (TX, value, True)
            assert version == 6 or checksum(left[14:34]) == 0


@families
def test_nothing_is_wrapped_in_no_address(sides: Sides, version: int) -> None:
    sides.open(version)
    DevicesTable(sides.datapath.maps).write({"wire": DeviceRow(DeviceFlag.SERVICES)}, ())
    first = asked(version, TCP)
    assert early(sides, first) == (PASS, first)


@families
def test_what_does_not_fit_is_handed_over(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    large = udp(CLIENT[version], 5000, NODE[version], NODE_PORT, bytes(1500 - (28 if version == 4 else 48)))
    assert early(sides, large) == (PASS, large)
    small = udp(CLIENT[version], 5000, NODE[version], NODE_PORT)
    assert [early(sides, small)[0], early(sides, large)] == [TX, (PASS, large)]


@families
def test_what_a_router_says_is_too_large_is_handed_over(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    large = uncut(udp(CLIENT[version], 5000, NODE[version], NODE_PORT, bytes(1380)))
    action, wrapped = early(sides, large)
    assert action == TX
    sides.arrives(error(version, STRANGER[version], NODE[version], wrapped, 1400))
    for name in ("passing4", "passing6", "ways4", "ways6"):  # a tick later
        map_ = sides.datapath.maps.open(name)
        map_.delete(map_.read()[0])
    assert early(sides, udp(CLIENT[version], 5000, NODE[version], NODE_PORT))[0] == TX
    assert early(sides, large) == (PASS, large)


@families
def test_an_error_about_an_answer_is_handed_over(sides: Sides, version: int) -> None:
    sides.open(version)
    told = error(version, OTHER[version], NODE[version], tcp(NODE[version], NODE_PORT, CLIENT[version], 5000))
    assert early(sides, told) == (PASS, told)
    assert early(sides, asked(version, TCP))[0] == TX
    assert early(sides, told) == (PASS, told)


@families
def test_the_end_of_a_flow_is_noted(sides: Sides, version: int) -> None:
    sides.open(version)
    for flags in (SYN, ACK, FIN | ACK):
        assert early(sides, asked(version, TCP, flags))[0] == TX
    assert sides.datapath.maps.open("translations").read()[1]["closing"].tolist() == [2]


def test_no_mutation_of_a_packet_does_more_than_go_on_or_pass_as_it_is(sides: Sides) -> None:
    def untouched(frame: bytes) -> Ran:
        ran = early(sides, frame)
        assert ran.packet.endswith(frame[14:])
        assert ran.action == TX or ran.packet == frame
        return ran

    tries: list[tuple[bytes, Way]] = []
    for version in (4, 6):
        for protocol in (TCP, UDP):
            sides.open(version, protocol=protocol)
        tries += [(frame, untouched) for frame in frames(CLIENT[version], 5000, NODE[version], NODE_PORT)]
    survive(sides.datapath, tries, {TX, PASS}, drop=DROP)
