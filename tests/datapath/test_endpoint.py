"""What the endpoint programs do with packets, family by family: delivery, policy, conntrack, and what is not let in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import numpy as np
import pytest

from reconciler.model.datapath import IpcacheFlag, Verdict

from .harness import REDIRECT, SHOT, UNSPEC, Allow, Device, Harness, Ran, ipcache_rows
from .mutations import Way, errors, frames, survive
from .packets import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, checksum, echo, ethernet, ip, tcp, udp

DEFAULT, DENY, SPOOFED, UNKNOWN_DESTINATION, MALFORMED, FRAGMENT = 1, 2, 4, 5, 6, 8  # enum reason
HOST = {"address4": "10.0.0.1", "address6": "fd00::1"}
WORLD = {"address4": "203.0.113.9", "address6": "2001:db8::9"}
SYN_ACK = SYN | ACK

families = pytest.mark.parametrize("family", ["address4", "address6"])


def _of(device: Device, family: str) -> str:
    return str(getattr(device, family))


def _open(*devices: Device) -> list[Allow]:
    """Rows by which these workloads are not isolated at all."""
    return [Allow(device.identity, egress=egress, cookie=0) for device in devices for egress in (False, True)]


def _isolated(device: Device, cookie: int) -> Allow:
    return Allow(device.identity, verdict=Verdict.DEFAULT_DENY, cookie=cookie)


@families
def test_a_reply_passes_though_no_rule_allows_it(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    rules = [*_open(server), Allow(client.identity, egress=True), _isolated(client, 5)]
    datapath.become_usual(rules)
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(tcp(there, 1000, back, 80), client).action == REDIRECT
    assert datapath.sent(tcp(back, 80, there, 1000, SYN_ACK), server).action == REDIRECT


@families
def test_the_same_packet_without_a_request_is_refused(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([*_open(server), Allow(client.identity, egress=True), _isolated(client, 5)])
    packet = tcp(_of(server, family), 80, _of(client, family), 1000, SYN_ACK)
    assert datapath.sent(packet, server).action == SHOT
    (event,) = datapath.events()
    assert (event["reason"], event["cookie"]) == (DEFAULT, 5)
    assert (event["source_identity"], event["destination_identity"]) == (server.identity, client.identity)


@families
def test_an_address_that_is_not_the_senders_is_refused(datapath: Harness, family: str) -> None:
    client, server, other = datapath.devices
    datapath.become_usual(_open(*datapath.devices))
    packet = tcp(_of(other, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == SHOT
    assert datapath.events()["reason"].tolist() == [SPOOFED]


@families
def test_a_known_flow_cannot_be_joined_from_another_device(datapath: Harness, family: str) -> None:
    client, server, other = datapath.devices
    datapath.become_usual(_open(*datapath.devices))
    packet = tcp(_of(client, family), 1000, _of(server, family), 80)
    assert datapath.sent(packet, client).action == REDIRECT
    assert datapath.sent(packet, other).action == SHOT
    assert datapath.events()["reason"].tolist()[-1] == SPOOFED


@families
def test_a_packet_for_another_address_does_not_reach_the_device(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(*datapath.devices))
    packet = tcp(HOST[family], 1000, _of(server, family), 80)
    assert datapath.received(packet, client).action == SHOT
    assert datapath.events()["reason"].tolist() == [UNKNOWN_DESTINATION]


@families
def test_what_is_for_the_world_goes_to_the_stack(datapath: Harness, family: str) -> None:
    client, *_ = datapath.devices
    datapath.become_usual(_open(client))
    packet = udp(_of(client, family), 1000, WORLD[family], 53)
    assert datapath.sent(packet, client).action == UNSPEC
    assert datapath.sent(packet, client).action == UNSPEC
    answer = udp(WORLD[family], 53, _of(client, family), 1000)
    assert datapath.received(answer, client, ingress_ifindex=1).action == UNSPEC


@families
def test_what_the_host_itself_sends_is_the_hosts_whatever_its_address(datapath: Harness, family: str) -> None:
    server = datapath.devices[1]
    datapath.become_usual([_isolated(server, 5), Allow(server.identity, peer=1, cookie=6)])
    packet = tcp(WORLD[family], 1000, _of(server, family), 80)
    assert datapath.received(packet, server).action == UNSPEC
    assert datapath.events()["source_identity"].tolist() == [1]


@families
def test_the_same_packet_from_outside_is_the_worlds(datapath: Harness, family: str) -> None:
    server = datapath.devices[1]
    datapath.become_usual([_isolated(server, 5), Allow(server.identity, peer=1, cookie=6)])
    packet = tcp(WORLD[family], 1000, _of(server, family), 80)
    assert datapath.received(packet, server, ingress_ifindex=1).action == SHOT
    assert datapath.events()["source_identity"].tolist() == [2]


@families
def test_the_hosts_flow_is_still_the_hosts_when_it_is_judged_again(datapath: Harness, family: str) -> None:
    server = datapath.devices[1]
    rules = [_isolated(server, 5), Allow(server.identity, peer=1, cookie=6)]
    datapath.become_usual(rules)
    assert datapath.received(tcp(WORLD[family], 1000, _of(server, family), 80), server).action == UNSPEC
    datapath.become(policy=[*rules, Allow(server.identity, egress=True, verdict=Verdict.DEFAULT_DENY)])
    answer = tcp(_of(server, family), 80, WORLD[family], 1000, SYN_ACK)
    assert datapath.sent(answer, server).action == UNSPEC


@families
@pytest.mark.parametrize("broad", [0, 101])
def test_a_deny_beats_an_allow_whichever_is_more_specific(datapath: Harness, family: str, broad: int) -> None:
    client, server, _ = datapath.devices
    narrow = client.identity if broad == 0 else 0
    rules = [
        *_open(client),
        Allow(server.identity, peer=broad, verdict=Verdict.DENY, cookie=3),
        Allow(server.identity, peer=narrow, protocol=TCP, port=80, cookie=4),
    ]
    datapath.become_usual(rules)
    assert datapath.sent(tcp(_of(client, family), 1000, _of(server, family), 80), client).action == SHOT
    (event,) = datapath.events()
    assert (event["reason"], event["cookie"]) == (DENY, 3)


@families
@pytest.mark.parametrize(("port", "action"), [(1023, SHOT), (1024, REDIRECT), (2047, REDIRECT), (2048, SHOT)])
def test_a_prefix_of_ports_is_a_range(datapath: Harness, family: str, port: int, action: int) -> None:
    client, server, _ = datapath.devices
    allowed = Allow(server.identity, client.identity, protocol=TCP, port=1024, port_bits=6)
    datapath.become_usual([*_open(client), _isolated(server, 5), allowed])
    assert datapath.sent(tcp(_of(client, family), 1000, _of(server, family), port), client).action == action


@families
def test_the_longest_prefix_says_who_an_address_is(datapath: Harness, family: str) -> None:
    client, *_ = datapath.devices
    network = {"address4": "203.0.113.0/24", "address6": "2001:db8::/64"}[family]
    datapath.become_usual([Allow(client.identity, 77, egress=True), _isolated(client, 5)])
    rows = ipcache_rows({ip_network(network): (77, 0)})
    datapath.ipcache.write(rows, rows.keys[:0])
    datapath.generation.flip()
    assert datapath.sent(udp(_of(client, family), 1, WORLD[family], 53), client).action == UNSPEC
    assert datapath.events()["destination_identity"].tolist() == [77]


@families
def test_a_removed_allow_cuts_the_reply_direction_too(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(tcp(there, 1000, back, 80), client).action == REDIRECT
    assert datapath.sent(tcp(back, 80, there, 1000, SYN_ACK), server).action == REDIRECT
    datapath.become(policy=[*_open(client), _isolated(server, 5), Allow(server.identity, egress=True)])
    assert datapath.sent(tcp(back, 80, there, 1000, ACK), server).action == SHOT
    assert datapath.sent(tcp(there, 1000, back, 80, ACK), client).action == SHOT
    assert datapath.events()["cookie"].tolist()[-2:] == [5, 5]


@families
def test_a_flow_that_was_cut_goes_on_when_it_is_allowed_again(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    packet = tcp(_of(client, family), 1000, _of(server, family), 80, ACK)
    for rules, action in (
        (_open(client, server), REDIRECT),
        ([*_open(client), _isolated(server, 5)], SHOT),
        (_open(client, server), REDIRECT),
    ):
        datapath.become_usual(rules)
        assert datapath.sent(packet, client).action == action


@families
def test_a_denial_is_remembered_with_its_reason_and_only_in_its_direction(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([*_open(client), _isolated(server, 5), Allow(server.identity, egress=True)])
    there, back = _of(client, family), _of(server, family)
    for _ in range(2):
        assert datapath.sent(udp(there, 500, back, 500), client).action == SHOT
    assert datapath.sent(udp(back, 500, there, 500), server).action == REDIRECT
    assert datapath.events()["cookie"].tolist()[:2] == [5, 5]


@families
def test_a_new_connection_may_take_the_ports_of_one_that_is_over(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    there, back = _of(client, family), _of(server, family)
    for flags in (SYN, FIN | ACK):
        assert datapath.sent(tcp(there, 1000, back, 80, flags), client).action == REDIRECT
    assert datapath.sent(tcp(back, 80, there, 1000, FIN | ACK), server).action == REDIRECT
    assert datapath.sent(tcp(back, 80, there, 1000, SYN), server).action == REDIRECT
    events = datapath.events()
    assert len(events) == 2
    assert events["reply"].tolist() == [0, 0]
    assert events["source_identity"].tolist() == [client.identity, server.identity]


@families
def test_a_reset_closes_both_ends(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(tcp(there, 1000, back, 80), client).action == REDIRECT
    assert datapath.sent(tcp(back, 80, there, 1000, RST), server).action == REDIRECT
    assert _entries(datapath, family)["closing"].tolist() == [3]


@families
def test_both_ends_of_a_flow_are_counted_in_one_entry(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    there, back = _of(client, family), _of(server, family)
    packet = udp(there, 1000, back, 53)
    for _ in range(3):
        datapath.sent(packet, client)
    datapath.sent(udp(back, 53, there, 1000), server)
    (entry,) = _entries(datapath, family)
    assert sorted(entry["packets"].tolist()) == [1, 3]
    assert entry["bytes"].max() == 3 * len(packet)


def _entries(datapath: Harness, family: str) -> np.ndarray:
    return datapath.maps.open("conntrack4" if family == "address4" else "conntrack6").read()[1]


@families
def test_a_connection_whose_opener_is_silent_after_the_answer_is_soon_forgotten(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    ends = _of(client, family), 1000, _of(server, family), 80
    datapath.sent(tcp(*ends), client)
    datapath.sent(tcp(*ends[2:], *ends[:2], SYN | ACK), server)
    opening = _entries(datapath, family)["expires"].max()
    datapath.sent(tcp(*ends, ACK), client)
    assert _entries(datapath, family)["expires"].min() > opening + 10_000  # ticks


@families
def test_an_expired_flow_is_a_new_one(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    packet = udp(_of(client, family), 1000, _of(server, family), 53)
    datapath.sent(packet, client)
    flows = datapath.maps.open("conntrack4" if family == "address4" else "conntrack6")
    keys, entries = flows.read()
    entries["expires"] -= 1000
    flows.update(keys, entries)
    datapath.sent(packet, client)
    assert len(datapath.events()) == 2
    assert _entries(datapath, family)["packets"].max() == 1


def _errors(family: str, device: Device, router: str, quoted: bytes) -> bytes:
    """An ICMP error from a router to the device about a packet that the device sent."""
    payload = bytes(4) + quoted[14:]
    if family == "address4":
        head = b"\x03\x01" + checksum(b"\x03\x01\0\0" + payload).to_bytes(2, "big")
        return ip(router, _of(device, family), ICMP, head + payload)
    return ip(router, _of(device, family), ICMPV6, b"\x01\x03\0\0" + payload)


@families
def test_an_icmp_error_passes_with_its_flow(datapath: Harness, family: str) -> None:
    client, *_ = datapath.devices
    datapath.become_usual([Allow(client.identity, egress=True), _isolated(client, 5)])
    packet = udp(_of(client, family), 1000, WORLD[family], 53)
    assert datapath.sent(packet, client).action == UNSPEC
    error = _errors(family, client, {"address4": "198.51.100.1", "address6": "2001:db8:1::1"}[family], packet)
    assert datapath.received(error, client, ingress_ifindex=1).action == UNSPEC


@families
def test_an_icmp_error_about_nothing_stands_for_itself(datapath: Harness, family: str) -> None:
    client, *_ = datapath.devices
    datapath.become_usual([Allow(client.identity, egress=True), _isolated(client, 5)])
    packet = udp(_of(client, family), 1000, WORLD[family], 53)
    error = _errors(family, client, {"address4": "198.51.100.1", "address6": "2001:db8:1::1"}[family], packet)
    assert datapath.received(error, client, ingress_ifindex=1).action == SHOT
    (event,) = datapath.events()
    assert (event["reason"], event["protocol"]) == (DEFAULT, ICMP if family == "address4" else ICMPV6)


@families
def test_an_icmp_error_about_a_forbidden_flow_does_not_pass(datapath: Harness, family: str) -> None:
    client, *_ = datapath.devices
    datapath.become_usual([Allow(client.identity, egress=True), _isolated(client, 5)])
    packet = udp(_of(client, family), 1000, WORLD[family], 53)
    datapath.sent(packet, client)
    datapath.become(policy=[_isolated(client, 5), Allow(client.identity, egress=True, verdict=Verdict.DENY, cookie=9)])
    error = _errors(family, client, {"address4": "198.51.100.1", "address6": "2001:db8:1::1"}[family], packet)
    assert datapath.received(error, client, ingress_ifindex=1).action == SHOT
    assert datapath.events()["cookie"].tolist()[-1] == 9


@families
def test_an_echo_and_its_reply_are_one_flow(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([*_open(server), Allow(client.identity, egress=True), _isolated(client, 5)])
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(echo(there, back), client).action == REDIRECT
    assert datapath.sent(echo(back, there, reply=True), server).action == REDIRECT
    assert datapath.sent(echo(back, there, identifier=8, reply=True), server).action == SHOT


@families
@pytest.mark.parametrize("identifier", [5, 0xFFFF ^ 5])
def test_a_request_the_other_way_is_another_flow_whatever_its_identifier(
    datapath: Harness, family: str, identifier: int
) -> None:
    client, server, _ = datapath.devices
    closed = Allow(client.identity, egress=True, verdict=Verdict.DEFAULT_DENY, cookie=5)
    datapath.become_usual([Allow(server.identity, egress=True), _isolated(server, 6), Allow(client.identity), closed])
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(echo(back, there, identifier=5), server).action == REDIRECT
    assert datapath.sent(echo(there, back, identifier=identifier), client).action == SHOT


@families
def test_a_reply_that_nobody_asked_for_does_not_pass_as_a_request(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([*_open(server), Allow(client.identity, egress=True), _isolated(client, 5)])
    there, back = _of(client, family), _of(server, family)
    assert datapath.sent(echo(there, back, identifier=5), client).action == REDIRECT
    assert datapath.sent(echo(back, there, identifier=0xFFFF ^ 5), server).action == SHOT
    assert datapath.sent(echo(back, there, identifier=0xFFFF ^ 5, reply=True), server).action == SHOT


@families
def test_an_echo_is_judged_by_its_type_as_long_as_it_lives(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    kind, protocol = (8, ICMP) if family == "address4" else (128, ICMPV6)
    rule = Allow(server.identity, client.identity, protocol=protocol, port=kind)
    there, back = _of(client, family), _of(server, family)
    datapath.become_usual([*_open(client), rule, _isolated(server, 5), Allow(server.identity, egress=True)])
    assert datapath.sent(echo(there, back), client).action == REDIRECT
    datapath.become(policy=[*_open(client), rule, _isolated(server, 6), Allow(server.identity, egress=True)])
    assert datapath.sent(echo(back, there, reply=True), server).action == REDIRECT


@families
def test_one_hop_less_and_the_checksum_still_right(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    packet = datapath.sent(tcp(_of(client, family), 1000, _of(server, family), 80), client).packet
    if family == "address4":
        assert packet[22] == 63
        assert checksum(packet[14:34]) == 0
    else:
        assert packet[21] == 63


@families
def test_a_packet_with_no_hop_left_is_the_stacks_to_answer(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    packet = ip(_of(client, family), _of(server, family), UDP, b"\0\1\0\2\0\x08\0\0", ttl=1)
    assert datapath.sent(packet, client).action == UNSPEC


def test_later_fragments_follow_the_first(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    allowed = Allow(server.identity, client.identity, protocol=UDP, port=53)
    datapath.become_usual([*_open(client), _isolated(server, 5), allowed])
    there, back = str(client.address4), str(server.address4)
    first = ip(there, back, UDP, b"\0\1\0\x35\0\x20\0\0" + bytes(16), fragment=0x2000)
    later = ip(there, back, UDP, bytes(8), fragment=3)
    assert datapath.sent(later, client).action == SHOT
    assert datapath.events()["reason"].tolist() == [FRAGMENT]
    assert datapath.sent(first, client).action == REDIRECT
    assert datapath.sent(later, client).action == REDIRECT


def _hop_by_hop(inner: int) -> bytes:
    return bytes([inner, 0, 1, 4, 0, 0, 0, 0])


def _fragment6(inner: int, offset: int, more: bool) -> bytes:
    return bytes([inner, 0]) + (offset << 3 | more).to_bytes(2, "big") + b"\0\0\0\7"


def test_ipv6_fragments_behind_extension_headers_follow_the_first(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    allowed = Allow(server.identity, client.identity, protocol=UDP, port=53)
    datapath.become_usual([*_open(client), _isolated(server, 5), allowed])
    there, back = str(client.address6), str(server.address6)
    head = b"\0\1\0\x35\0\x20\0\0"
    first = ip(there, back, 0, _hop_by_hop(44) + _fragment6(UDP, 0, True) + head + bytes(16))
    later = ip(there, back, 44, _fragment6(UDP, 3, False) + bytes(8))
    assert datapath.sent(later, client).action == SHOT
    assert datapath.sent(first, client).action == REDIRECT
    assert datapath.sent(later, client).action == REDIRECT


def test_more_extension_headers_than_we_walk_are_malformed(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    packet = ip(str(client.address6), str(server.address6), 0, _hop_by_hop(0) * 7 + bytes(40))
    assert datapath.sent(packet, client).action == SHOT
    assert datapath.events()["reason"].tolist() == [MALFORMED]


def test_arp_for_whatever_is_answered_with_the_gateway(datapath: Harness) -> None:
    client, *_ = datapath.devices
    ask = _arp(1, client.mac, "10.1.0.1", "00:00:00:00:00:00", "169.254.1.1")
    ran = datapath.sent(ethernet(ask, 0x0806, client.mac, "ff:ff:ff:ff:ff:ff"), client)
    assert ran.action == REDIRECT
    assert ran.packet[:42] == ethernet(
        _arp(2, "ee:ee:ee:ee:ee:ee", "169.254.1.1", client.mac, "10.1.0.1"), 0x0806, "ee:ee:ee:ee:ee:ee", client.mac
    )


def test_a_probe_for_its_own_address_is_not_answered(datapath: Harness) -> None:
    client, *_ = datapath.devices
    for sender in ("0.0.0.0", "10.1.0.1"):
        ask = _arp(1, client.mac, sender, "00:00:00:00:00:00", "10.1.0.1")
        assert datapath.sent(ethernet(ask, 0x0806), client).action == SHOT


def _arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    macs = [bytes.fromhex(mac.replace(":", "")) for mac in (sender_mac, target_mac)]
    addresses = [IPv4Address(one).packed for one in (sender, target)]
    head = b"\0\1\x08\0\6\4" + operation.to_bytes(2, "big")
    return head + macs[0] + addresses[0] + macs[1] + addresses[1]


@pytest.mark.parametrize("option", [b"", b"\1\1\2\0\0\0\0\1"])
def test_a_neighbour_solicitation_is_answered_with_the_gateway(datapath: Harness, option: bytes) -> None:
    client, *_ = datapath.devices
    ran = datapath.sent(_solicitation(str(client.address6), "fe80::1", option), client)
    assert ran.action == REDIRECT
    assert len(ran.packet) == 86
    assert ran.packet[:6].hex(":") == client.mac
    assert ran.packet[-6:].hex(":") == "ee:ee:ee:ee:ee:ee"
    body = ran.packet[54:]
    assert (body[0], body[4]) == (136, 0xE0)
    pseudo = ran.packet[22:54] + len(body).to_bytes(4, "big") + b"\0\0\0\x3a"
    assert checksum(pseudo + body) == 0


def test_detection_of_duplicate_addresses_finds_none(datapath: Harness) -> None:
    client, *_ = datapath.devices
    assert datapath.sent(_solicitation("::", str(client.address6), b""), client).action == SHOT


def _solicitation(source: str, target: str, option: bytes) -> bytes:
    body = b"\x87\0\0\0\0\0\0\0" + IPv6Address(target).packed + option
    return ip(source, "ff02::1:ff00:1", ICMPV6, body, ttl=255)


@pytest.mark.parametrize(
    "packet",
    [
        ethernet(bytes(46), 0x88CC),
        udp("10.1.0.1", 5353, "224.0.0.251", 5353),
        udp("fd00:1::1", 5353, "ff02::fb", 5353),
        ip("10.1.0.1", "255.255.255.255", UDP, b"\0\x44\0\x43\0\x08\0\0"),
    ],
    ids=["lldp", "multicast4", "multicast6", "broadcast"],
)
def test_what_is_no_unicast_ip_is_counted_and_dropped(datapath: Harness, packet: bytes) -> None:
    client, *_ = datapath.devices
    datapath.become_usual(_open(client))
    assert datapath.sent(packet, client).action == SHOT
    assert len(datapath.events()) == 0


def test_a_host_without_rows_lets_nothing_pass(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    packet = tcp(str(client.address4), 1000, str(server.address4), 80)
    assert datapath.sent(packet, client).action == SHOT
    assert datapath.received(packet, server).action == SHOT


def test_a_workload_that_the_ipcache_does_not_know_as_ours_may_do_nothing(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(_open(client, server))
    rows = ipcache_rows({client.address4: (client.identity, IpcacheFlag(0))})
    datapath.ipcache.write(rows, rows.keys[:0])
    datapath.generation.flip()
    packet = tcp(str(client.address4), 1000, str(server.address4), 80)
    assert datapath.sent(packet, client).action == SHOT


def test_no_mutation_of_a_packet_does_more_than_pass_or_drop(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual(
        [
            *_open(client),
            Allow(server.identity, verdict=Verdict.DEFAULT_DENY),
            Allow(server.identity, client.identity, protocol=TCP),
        ]
    )

    def is_sent(frame: bytes) -> Ran:
        return datapath.sent(frame, client)

    def is_answered(frame: bytes) -> Ran:
        return datapath.sent(frame, server)

    def is_received(frame: bytes) -> Ran:
        return datapath.received(frame, server, ingress_ifindex=1)

    tries: list[tuple[bytes, Way]] = []
    for family in ("address4", "address6"):
        there, back, world = _of(client, family), _of(server, family), WORLD[family]
        tries += [(frame, is_sent) for frame in frames(there, 1000, back, 80)]
        tries += [(frame, is_answered) for frame in frames(back, 80, there, 1000)]
        tries += [(frame, is_answered) for frame in errors(back, there, frames(there, 1000, back, 80))]
        tries += [(frame, is_received) for frame in frames(world, 1000, back, 80)]
        tries += [(frame, is_received) for frame in errors(world, back, frames(back, 80, world, 1000))]
    tries.append((_solicitation(_of(client, "address6"), "fe80::1", b""), is_sent))
    tries.append((_arp(1, client.mac, str(client.address4), "00:00:00:00:00:00", "169.254.1.1"), is_sent))
    survive(datapath, tries, {UNSPEC, SHOT, REDIRECT})
