"""What the programs of a node device do with packets: translation there and back, ports, and what is not let pass."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import numpy as np
import pytest

from reconciler.model.datapath import Verdict
from reconciler.model.outside import DeviceFlag

from .gate import HOST, ROUTER, WORLD, Gate, ends, error, is_whole, made_gate
from .harness import SHOT, UNSPEC, Allow, Harness, Ran
from .mutations import Way, errors, frames, survive
from .packets import ACK, ICMP, SCTP, SYN, TCP, UDP, echo, ip, sctp, tcp, udp

FIRST_PORT, LAST_PORT = 49152, 65535
NO_PORT, UNTRANSLATABLE, POLICY_DEFAULT = 13, 14, 1  # enum reason
GRE = 47
ANY = DeviceFlag.MASQUERADE4 | DeviceFlag.MASQUERADE6 | DeviceFlag.HOST_POLICY
families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP])


@pytest.fixture
def gate(datapath: Harness) -> Iterator[Gate]:
    with made_gate(datapath, ANY) as made:
        yield made


def _there(gate: Gate, version: int, protocol: int) -> bytes:
    mine, world = gate.address(version), WORLD[version]
    if protocol == TCP:
        return tcp(mine, 1000, world, 80)
    if protocol == SCTP:
        return sctp(mine, 1000, world, 9)
    return udp(mine, 1000, world, 53) if protocol == UDP else echo(mine, world, 7)


def _answer(version: int, protocol: int, port: int) -> bytes:
    host, world = HOST[version], WORLD[version]
    if protocol == TCP:
        return tcp(world, 80, host, port, SYN | ACK)
    if protocol == SCTP:
        return sctp(world, 9, host, port)
    return udp(world, 53, host, port) if protocol == UDP else echo(world, host, port, reply=True)


@families
@protocols
def test_a_flow_leaves_with_the_devices_address_and_its_answer_comes_back(
    gate: Gate, version: int, protocol: int
) -> None:
    action, packet = gate.leaves(_there(gate, version, protocol))
    host, port, world, _ = ends(packet)
    assert (action, host, world) == (UNSPEC, HOST[version], WORLD[version])
    assert is_whole(packet)
    action, packet = gate.arrives(_answer(version, protocol, port))
    assert (action, ends(packet)[2:]) == (UNSPEC, (gate.address(version), 7 if protocol == ICMP else 1000))
    assert is_whole(packet)


@families
@protocols
def test_an_error_comes_back_with_what_the_workload_sent(gate: Gate, version: int, protocol: int) -> None:
    sent = _there(gate, version, protocol)
    _, packet = gate.leaves(sent)
    action, told = gate.arrives(error(version, ROUTER[version], HOST[version], packet))
    assert action == UNSPEC
    assert is_whole(told)
    assert ends(told)[2] == gate.address(version)
    quoted = told[:14] + told[42 if version == 4 else 62 :]
    assert ends(quoted) == ends(sent)


@families
def test_an_error_of_a_workload_speaks_of_its_own_flows_only(gate: Gate, version: int) -> None:
    sent = _there(gate, version, UDP)
    port = ends(gate.leaves(sent)[1])[1]
    got = gate.arrives(_answer(version, UDP, port))[1]
    action, told = gate.leaves(error(version, gate.address(version), WORLD[version], got))
    assert (action, ends(told)[0], is_whole(told)) == (UNSPEC, HOST[version], True)
    other = gate.address(version, gate.datapath.devices[1])
    assert gate.leaves(error(version, other, WORLD[version], got))[0] == SHOT


@families
def test_without_a_port_left_the_packet_is_dropped_with_its_reason(gate: Gate, version: int) -> None:
    _take_every_port(gate, version, expires=np.iinfo(np.int32).max)
    assert gate.leaves(tcp(gate.address(version), 1000, WORLD[version], 80))[0] == SHOT
    assert gate.reasons() == [NO_PORT]
    assert gate.leaves(tcp(gate.address(version), 1000, WORLD[version], 81))[0] == UNSPEC


@families
def test_ports_of_flows_that_are_over_are_given_away_again(gate: Gate, version: int) -> None:
    _take_every_port(gate, version, expires=0)
    action, packet = gate.leaves(tcp(gate.address(version), 1000, WORLD[version], 80))
    assert action == UNSPEC
    assert gate.arrives(_answer(version, TCP, ends(packet)[1]))[0] == UNSPEC


def _take_every_port(gate: Gate, version: int, expires: int) -> None:
    """For TCP to port 80 of the world."""
    map_ = gate.datapath.maps.open("translations")
    ports = range(FIRST_PORT, LAST_PORT + 1)
    packed = (address.packed.ljust(16, b"\0") for address in map(ip_address, (WORLD[version], HOST[version])))
    head, tail = b"".join(packed) + struct.pack("!H", 80), struct.pack("BBBx", TCP, 1, version == 6)
    keys = b"".join(head + struct.pack("!H", port) + tail for port in ports)
    values = np.zeros(len(ports), map_.value_dtype)
    values["expires"] = expires
    map_.update(np.frombuffer(keys, map_.key_dtype), values)


@families
def test_what_has_no_ports_does_not_leave(gate: Gate, version: int) -> None:
    assert gate.leaves(ip(gate.address(version), WORLD[version], GRE, bytes(12)))[0] == SHOT
    assert gate.reasons() == [UNTRANSLATABLE]


def test_an_association_in_fragments_leaves_with_no_other_port(gate: Gate) -> None:
    for port, reasons in ((1000, [UNTRANSLATABLE]), (FIRST_PORT, [])):
        whole = sctp(gate.address(4), port, WORLD[4], 9, bytes(36))[34:]
        left = gate.leaves(ip(gate.address(4), WORLD[4], SCTP, whole[:24], fragment=0x2000))
        assert left[0] == (SHOT if reasons else UNSPEC)
        assert gate.reasons() == reasons


@families
def test_who_asks_an_open_port_of_the_range_gets_nobodys_workload(gate: Gate, version: int) -> None:
    gate.leaves(_there(gate, version, TCP))
    packet = tcp(ROUTER[version], 80, HOST[version], FIRST_PORT)
    assert gate.arrives(packet) == (UNSPEC, packet)


@families
def test_the_host_is_closed_to_whom_no_rule_allows(gate: Gate, version: int) -> None:
    gate.datapath.become_usual(
        [Allow(1, verdict=Verdict.DEFAULT_DENY, cookie=5), Allow(1, protocol=TCP, port=22), Allow(1, egress=True)]
    )
    assert gate.arrives(tcp(WORLD[version], 1000, HOST[version], 22))[0] == UNSPEC
    assert gate.leaves(tcp(HOST[version], 22, WORLD[version], 1000, SYN | ACK), forwarded=False)[0] == UNSPEC
    gate.datapath.events()
    assert gate.arrives(tcp(WORLD[version], 1000, HOST[version], 80))[0] == SHOT
    (event,) = gate.datapath.events()
    assert (event["reason"], event["cookie"], event["destination_identity"]) == (POLICY_DEFAULT, 5, 1)


@families
def test_nobody_speaks_to_the_host_from_outside_with_a_workloads_address(gate: Gate, version: int) -> None:
    gate.datapath.become_usual([Allow(1), Allow(1, egress=True)])
    assert gate.arrives(tcp(gate.address(version), 1000, HOST[version], 80))[0] == SHOT


def test_no_mutation_of_a_packet_does_more_than_pass_or_drop(gate: Gate) -> None:
    gate.datapath.become_usual([Allow(1, verdict=Verdict.DEFAULT_DENY), Allow(1, protocol=TCP), Allow(1, egress=True)])

    def is_the_hosts(frame: bytes) -> Ran:
        return gate.leaves(frame, forwarded=False)

    tries: list[tuple[bytes, Way]] = []
    for version in (4, 6):
        mine, world, host = gate.address(version), WORLD[version], HOST[version]
        sent = list(frames(mine, 1000, world, 80))
        left = [got for action, got in map(gate.leaves, sent) if action == UNSPEC]
        answers = list(frames(world, 80, host, ends(left[0])[1]))
        tries += [(frame, gate.leaves) for frame in sent]
        tries += [(frame, gate.arrives) for frame in answers]
        tries += [(frame, gate.arrives) for frame in errors(ROUTER[version], host, iter(left))]
        tries += [(frame, gate.leaves) for frame in errors(mine, world, (gate.arrives(one)[1] for one in answers))]
        tries += [(frame, is_the_hosts) for frame in frames(host, 22, world, 1000)]
        tries += [(frame, gate.arrives) for frame in frames(world, 1000, host, 22)]
    survive(gate.datapath, tries, {UNSPEC, SHOT})
