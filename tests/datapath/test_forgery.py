"""What nobody may get past the endpoint programs: borrowed addresses, borrowed flows, errors about others' packets."""

from __future__ import annotations

import struct

import pytest

from reconciler.model.datapath import PolicyFlag, Verdict

from .harness import REDIRECT, SHOT, UNSPEC, Allow, Device, Harness
from .packets import ICMP, ICMPV6, UDP, checksum, echo, ip, tcp, udp

SPOOFED, AUDITED, DEFAULT, DENIED = 4, 10, 1, 2  # enum reason
ELSEWHERE = 77  # the index of no device here
HOST = {"address4": "10.0.0.1", "address6": "fd00::1"}
WORLD = {"address4": "203.0.113.9", "address6": "2001:db8::9"}

families = pytest.mark.parametrize("family", ["address4", "address6"])


def _of(device: Device, family: str) -> str:
    return str(getattr(device, family))


def _open(*devices: Device) -> list[Allow]:
    return [Allow(device.identity, egress=egress, cookie=0) for device in devices for egress in (False, True)]


def _unreachable(source: str, destination: str, quoted: bytes) -> bytes:
    """A port unreachable, from and to these, about a packet."""
    v6 = ":" in source
    message = struct.pack("!BBHI", 1 if v6 else 3, 4 if v6 else 3, 0, 0) + quoted[14:]
    if not v6:
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return ip(source, destination, ICMPV6 if v6 else ICMP, message)


@families
def test_an_error_about_ones_own_flow_reaches_nobody_else(datapath: Harness, family: str) -> None:
    sender, friend, stranger = datapath.devices
    isolated = Allow(stranger.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([*_open(sender, friend), isolated])
    flow = udp(_of(sender, family), 1000, _of(friend, family), 53)
    assert datapath.sent(flow, sender).action == REDIRECT
    error = _unreachable(_of(sender, family), _of(stranger, family), flow)
    assert datapath.sent(error, sender).action == SHOT


@families
def test_an_error_about_somebody_elses_flow_is_judged_by_itself(datapath: Harness, family: str) -> None:
    sender, friend, stranger = datapath.devices
    isolated = Allow(stranger.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([*_open(sender, friend), isolated])
    flow = udp(_of(sender, family), 1000, _of(friend, family), 53)
    assert datapath.sent(flow, sender).action == REDIRECT
    error = _unreachable(WORLD[family], _of(stranger, family), flow)
    assert datapath.received(error, stranger, ingress_ifindex=ELSEWHERE).action == SHOT


@families
def test_an_error_is_not_taken_for_the_echo_that_it_quotes(datapath: Harness, family: str) -> None:
    server = datapath.devices[1]
    protocol, kind = (ICMP, 8) if family == "address4" else (ICMPV6, 128)
    isolated = Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([isolated, Allow(server.identity, 2, protocol=protocol, port=kind)])
    quoted = echo(WORLD[family], HOST[family])
    error = _unreachable(WORLD[family], _of(server, family), quoted)
    assert datapath.received(error, server, ingress_ifindex=ELSEWHERE).action == SHOT


@families
def test_a_workloads_address_is_nobody_elses_to_use(datapath: Harness, family: str) -> None:
    sender, friend, _ = datapath.devices
    datapath.become_usual(_open(sender, friend))
    packet = udp(_of(sender, family), 5, _of(friend, family), 53)
    assert datapath.received(packet, friend, ingress_ifindex=ELSEWHERE).action == SHOT
    assert datapath.events()["reason"].tolist() == [SPOOFED]


@families
def test_nor_is_its_flow(datapath: Harness, family: str) -> None:
    sender, friend, _ = datapath.devices
    datapath.become_usual(_open(sender, friend))
    packet = udp(_of(sender, family), 5, _of(friend, family), 53)
    assert datapath.sent(packet, sender).action == REDIRECT
    assert datapath.received(packet, friend, ingress_ifindex=ELSEWHERE).action == SHOT
    assert datapath.received(packet, friend, ingress_ifindex=sender.ifindex).action == UNSPEC


@families
def test_a_packet_from_outside_with_the_hosts_address_is_not_the_hosts(datapath: Harness, family: str) -> None:
    server = datapath.devices[1]
    isolated = Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([isolated, Allow(server.identity, peer=1)])
    packet = udp(HOST[family], 5, _of(server, family), 53)
    assert datapath.received(packet, server, ingress_ifindex=ELSEWHERE).action == SHOT


@families
def test_nor_does_it_join_a_flow_of_the_hosts(datapath: Harness, family: str) -> None:
    server = datapath.devices[1]
    isolated = Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([isolated, Allow(server.identity, peer=1), Allow(server.identity, egress=True)])
    packet = udp(HOST[family], 5, _of(server, family), 53)
    assert datapath.received(packet, server).action == UNSPEC
    assert datapath.received(packet, server, ingress_ifindex=ELSEWHERE).action == SHOT
    assert datapath.sent(udp(_of(server, family), 53, HOST[family], 5), server).action == UNSPEC


@families
def test_a_rule_on_trial_records_and_lets_pass(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    trial = Allow(server.identity, verdict=Verdict.DEFAULT_DENY, flags=PolicyFlag.AUDIT, cookie=5)
    datapath.become_usual([*_open(client), trial])
    packet = tcp(_of(client, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == REDIRECT
    (event,) = datapath.events()
    assert (event["type"], event["reason"], event["cookie"]) == (2, AUDITED, 5)


@families
def test_a_trial_on_one_side_leaves_the_other_in_force(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    trial = Allow(client.identity, egress=True, verdict=Verdict.DEFAULT_DENY, flags=PolicyFlag.AUDIT, cookie=5)
    datapath.become_usual([trial, Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=6)])
    packet = tcp(_of(client, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == SHOT
    (event,) = datapath.events()
    assert (event["reason"], event["cookie"]) == (DEFAULT, 6)


@families
@pytest.mark.parametrize(("verdict", "side"), [(Verdict.DEFAULT_DENY, 2), (Verdict.DENY, 2)])
def test_a_workload_in_audit_mode_records_what_its_policy_denies(
    datapath: Harness, family: str, verdict: Verdict, side: int
) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([*_open(client), Allow(server.identity, verdict=verdict, cookie=5)], audited=[server])
    packet = tcp(_of(client, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == REDIRECT
    (event,) = datapath.events()
    assert (event["type"], event["reason"], event["cookie"], event["side"]) == (2, AUDITED, 5, side)


@families
def test_a_workload_in_audit_mode_does_not_speak_for_the_other(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    refused = Allow(client.identity, egress=True, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([refused, Allow(server.identity, verdict=Verdict.DENY, cookie=6)], audited=[client])
    packet = tcp(_of(client, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == SHOT
    (event,) = datapath.events()
    assert (event["reason"], event["cookie"], event["side"]) == (DENIED, 6, 2)


@families
def test_a_workload_that_leaves_audit_mode_is_closed_at_the_next_packet(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    policy = [*_open(client), Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)]
    datapath.become_usual(policy, audited=[server])
    packet = tcp(_of(client, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == REDIRECT
    datapath.become_usual(policy)
    assert datapath.sent(packet, client).action == SHOT


def test_a_workload_in_audit_mode_without_rows_may_do_nothing(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client), audited=[server])
    packet = tcp(_of(client, "address4"), 1000, _of(server, "address4"), 80)
    assert datapath.sent(packet, client).action == SHOT


def test_fragments_with_headers_behind_the_fragment_header_follow_the_first(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    allowed = Allow(server.identity, client.identity, protocol=UDP, port=53)
    isolated = Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([*_open(client), isolated, allowed])
    there, back = str(client.address6), str(server.address6)
    options = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
    first = bytes([60, 0, 0, 1, 0, 0, 0, 7]) + options + b"\0\1\0\x35\0\x20\0\0" + bytes(16)
    later = bytes([60, 0, 0, 4 << 3, 0, 0, 0, 7]) + bytes(8)
    assert datapath.sent(ip(there, back, 44, first), client).action == REDIRECT
    assert datapath.sent(ip(there, back, 44, later), client).action == REDIRECT


@families
def test_an_error_about_two_others_is_judged_by_itself(datapath: Harness, family: str) -> None:
    first, second, third = datapath.devices
    lonely = [Allow(third.identity, egress=egress, verdict=Verdict.DEFAULT_DENY, cookie=5) for egress in (False, True)]
    datapath.become_usual([*_open(first, second), *lonely])
    flow = udp(_of(first, family), 1000, _of(second, family), 53)
    assert datapath.sent(flow, first).action == REDIRECT
    assert datapath.sent(_unreachable(_of(second, family), _of(first, family), flow), second).action == REDIRECT
    assert datapath.sent(_unreachable(_of(third, family), _of(first, family), flow), third).action == SHOT


def _icmp(source: str, destination: str, kind: int) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, 0)
    return ip(source, destination, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def test_each_type_of_icmp_is_judged_by_itself(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    isolated = Allow(server.identity, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([*_open(client), isolated, Allow(server.identity, protocol=ICMP, port=13)])
    there, back = str(client.address4), str(server.address4)
    assert datapath.sent(_icmp(there, back, 13), client).action == REDIRECT
    for other in (17, 5):
        assert datapath.sent(_icmp(there, back, other), client).action == SHOT
    assert datapath.sent(echo(there, back, identifier=0), client).action == SHOT
    assert datapath.sent(_icmp(there, back, 13), client).action == REDIRECT


@families
def test_a_request_the_other_way_is_no_reply(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    silent = Allow(server.identity, egress=True, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([*_open(client), Allow(server.identity), silent])
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(echo(there, back), client).action == REDIRECT
    assert datapath.sent(echo(back, there), server).action == SHOT
    assert datapath.sent(echo(back, there, reply=True), server).action == REDIRECT


def test_a_later_fragment_opens_no_flow(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    there, back = str(client.address4), str(server.address4)
    first = ip(there, back, ICMP, struct.pack("!BBHHH", 8, 0, 0, 7, 1) + bytes(16), fragment=0x2000)
    later = ip(there, back, ICMP, bytes(8), fragment=3)
    datapath.become_usual(_open(client, server))
    assert datapath.sent(first, client).action == REDIRECT
    flows = datapath.maps.open("conntrack4")
    flows.delete(flows.read()[0])
    assert datapath.sent(later, client).action == SHOT
    assert len(flows.read()[0]) == 0


def test_a_forged_first_fragment_leads_nobody_astray(datapath: Harness) -> None:
    client, server, forger = datapath.devices
    datapath.become_usual(_open(client, server, forger))
    there, back = str(client.address4), str(server.address4)
    later = ip(there, back, UDP, bytes(8), fragment=3)
    assert (
        datapath.sent(ip(there, back, UDP, b"\0\1\0\x35\0\x20\0\0" + bytes(16), fragment=0x2000), client).action
        == REDIRECT
    )
    forged = ip(there, back, UDP, b"\0\2\0\x36\0\x20\0\0" + bytes(16), fragment=0x2000)
    assert datapath.sent(forged, forger).action == SHOT
    assert datapath.sent(later, client).action == REDIRECT
