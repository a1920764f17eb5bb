"""Flows to backends elsewhere, past the stack: both ends of a packet at once, and its way by the kernel's routes."""

from __future__ import annotations

import socket

import pytest

from .gate import HOST, ROUTER, WORLD, ends, error, is_whole
from .harness import REDIRECT, SHOT, UNSPEC, eventually
from .mutations import Way, errors, frames, survive
from .packets import ACK, FIN, SCTP, SYN, TCP, UDP, ip, sctp, segment, tcp, udp
from .road import BACKEND_MAC, CLIENT_MAC, HOP, Road
from .services import OUTSIDE
from .shop import ELSEWHERE, LOAD_BALANCER, at, packet

families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
SPOOFED_SOURCE, UNTRANSLATABLE = 4, 14  # enum reason
KEPT = 50000  # a client's port among those that flows leave by
AN_AGE = 300  # ticks, longer than any flow here lasts
NOWHERE = [
    *((4, one) for one in (HOST[4], "0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255")),
    *((6, one) for one in (HOST[6], "::", "::1", "fe80::5", "ff02::1")),
]


@families
@protocols
def test_a_packet_and_its_answer_get_both_ends_at_once(road: Road, version: int, protocol: int) -> None:
    road.open(version, ELSEWHERE[version], protocol=protocol)
    for flags in (SYN, ACK):
        action, left = road.arrives(road.asks(version, protocol, flags))
        source, port, *target = ends(left)
        assert (action, source, target) == (REDIRECT, HOST[version], [ELSEWHERE[version], 8080])
        assert (left[:6].hex(":"), left[HOP[version]], is_whole(left)) == (BACKEND_MAC, 63, True)
        action, back = road.arrives(road.answers(version, protocol, port))
        assert (action, ends(back)) == (REDIRECT, (HOST[version], 30080, WORLD[version], 5000))
        assert (back[:6].hex(":"), back[HOP[version]], is_whole(back)) == (CLIENT_MAC, 63, True)
    assert road.rows() == 2


@families
@protocols
def test_what_was_forwarded_leaves_as_it_is(road: Road, version: int, protocol: int) -> None:
    left = road.begin(version, protocol)
    back = road.arrives(road.answers(version, protocol, ends(left)[1]))[1]
    assert [road.leaves(one) for one in (left, back)] == [(UNSPEC, left), (UNSPEC, back)]
    assert road.rows() == 2


@families
def test_a_client_may_ask_one_backend_by_two_frontends_from_one_port(road: Road, version: int) -> None:
    road.open(version, ELSEWHERE[version])
    fronts = (HOST[version], 30080), (LOAD_BALANCER[version], 80)
    ports = [ends(road.arrives(tcp(WORLD[version], 5000, *front))[1])[1] for front in fronts]
    answers = [road.arrives(road.answers(version, TCP, port))[1] for port in ports]
    assert [ends(one)[:2] for one in answers] == list(fronts)


@families
@protocols
def test_an_error_about_a_packet_or_its_answer_speaks_of_what_its_receiver_knows(
    road: Road, version: int, protocol: int
) -> None:
    left = road.begin(version, protocol)
    answer = road.answers(version, protocol, ends(left)[1])
    back = road.arrives(answer)[1]
    for quoted, source, receiver, known in (
        (left, ELSEWHERE[version], WORLD[version], road.asks(version, protocol)),
        (left, ROUTER[version], WORLD[version], road.asks(version, protocol)),
        (back, WORLD[version], ELSEWHERE[version], answer),
    ):
        action, told = road.arrives(error(version, source, HOST[version], quoted))
        assert (action, is_whole(told)) == (UNSPEC, True)
        assert ends(told)[::2] == (source, receiver)
        assert ends(told[:14] + told[42 if version == 4 else 62 :]) == ends(known)
        assert road.leaves(told) == (UNSPEC, told)
    assert road.rows() == 2


def test_fragments_follow_their_first_one(road: Road) -> None:
    left = road.begin(4, TCP)
    body = segment(WORLD[4], 5000, HOST[4], 30080, ACK, bytes(32))
    first = road.arrives(ip(WORLD[4], HOST[4], TCP, body[:24], fragment=0x2000))
    later = road.arrives(ip(WORLD[4], HOST[4], TCP, body[24:], fragment=3))
    assert (first.action, ends(first.packet)) == (REDIRECT, ends(left))
    assert (later.action, ends(later.packet)[::2]) == (REDIRECT, ends(left)[::2])
    assert later.packet[34:] == body[24:]


def test_an_association_in_fragments_is_not_forwarded_from_another_port(road: Road) -> None:
    road.open(4, ELSEWHERE[4], protocol=SCTP)
    whole = sctp(WORLD[4], 5000, HOST[4], 30080, bytes(36))[34:]
    assert road.arrives(ip(WORLD[4], HOST[4], SCTP, whole[:24], fragment=0x2000)).action == SHOT
    assert road.reasons() == [UNTRANSLATABLE]


@families
def test_a_neighbour_that_is_not_known_yet_is_left_to_the_kernel_to_find(road: Road, version: int) -> None:
    road.set_up(f"neighbour del {ELSEWHERE[version]} dev {road.device.ifname}")
    road.open(version, ELSEWHERE[version])
    action, left = road.arrives(road.asks(version, TCP, SYN))
    assert (action, ends(left)[2]) == (REDIRECT, ELSEWHERE[version])


@families
def test_another_neighbour_is_followed_within_two_ticks(road: Road, version: int) -> None:
    road.begin(version, TCP)
    other = "02:00:00:00:0b:02"
    road.set_up(f"neighbour replace {ELSEWHERE[version]} lladdr {other} dev {road.device.ifname} nud permanent")
    eventually(lambda: road.arrives(road.asks(version, TCP)).packet[:6].hex(":") == other)


@families
def test_a_flow_that_begins_again_elsewhere_leaves_nothing_behind(road: Road, version: int) -> None:
    port = ends(road.begin(version, TCP))[1]
    road.services.kill(at(ELSEWHERE[version], 8080))
    other = {4: "10.9.0.8", 6: "fd00:9::8"}[version]
    road.set_up(f"route replace {other} dev {road.device.ifname}")
    road.open(version, other)
    assert ends(road.arrives(road.asks(version, TCP, SYN))[1])[2] == other
    assert road.rows() == 2
    stray = road.answers(version, TCP, port)
    assert road.arrives(stray).packet == stray


@families
def test_both_ends_of_a_connection_end_it_and_the_next_one_goes_the_same_way(road: Road, version: int) -> None:
    port = ends(road.begin(version, TCP))[1]
    road.arrives(road.answers(version, TCP, port, SYN | ACK))
    road.arrives(road.asks(version, TCP, FIN | ACK))
    values = road.datapath.maps.open("translations").read()[1]
    assert values["closing"].tolist() == [2, 2]
    road.arrives(road.answers(version, TCP, port, FIN | ACK))
    assert road.datapath.maps.open("translations").read()[1]["closing"].tolist() == [3, 3]
    action, left = road.arrives(road.asks(version, TCP, SYN))
    assert (action, ends(left)[:2], road.rows()) == (REDIRECT, (HOST[version], port), 2)
    assert road.datapath.maps.open("translations").read()[1]["closing"].tolist() == [0, 0]


@families
def test_a_row_that_was_pushed_out_is_made_anew_by_its_counterpart(road: Road, version: int) -> None:
    left = road.begin(version, UDP)
    translations = road.datapath.maps.open("translations")
    keys, values = translations.read()
    asked = keys["destination_port"] == int.from_bytes((30080).to_bytes(2, "big"), "little")
    values["expires"] -= 1  # as a tick later
    translations.update(keys, values)
    translations.delete(keys[asked])
    road.arrives(road.answers(version, UDP, ends(left)[1]))
    assert ends(road.arrives(road.asks(version, UDP))[1]) == ends(left)


@families
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_client_whose_row_was_pushed_out_speaks_from_the_port_that_its_backend_knows(
    road: Road, version: int, protocol: int
) -> None:
    left = road.begin(version, protocol)
    translations = road.datapath.maps.open("translations")
    keys, _ = translations.read()
    translations.delete(keys[keys["destination_port"] == socket.htons(30080)])
    assert ends(road.arrives(road.asks(version, protocol))[1]) == ends(left)
    assert road.rows() == 2


@families
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_port_that_was_given_away_again_stays_with_who_has_it(road: Road, version: int, protocol: int) -> None:
    """The client that had it before, and was silent for too long, gets another one."""
    other = ROUTER[version]
    neighbour = f"lladdr {CLIENT_MAC} dev {road.device.ifname} nud permanent"
    road.set_up(f"route replace {other} dev {road.device.ifname}", f"neighbour replace {other} {neighbour}")
    road.open(version, ELSEWHERE[version], protocol=protocol)
    before, after = (packet(protocol, one, KEPT, HOST[version], 30080) for one in (WORLD[version], other))
    assert ends(road.arrives(before)[1])[1] == KEPT
    translations = road.datapath.maps.open("translations")
    keys, values = translations.read()
    values["expires"] -= AN_AGE
    translations.update(keys, values)
    assert ends(road.arrives(after)[1])[1] == KEPT
    assert ends(road.arrives(before)[1])[1] != KEPT
    action, answer = road.arrives(road.answers(version, protocol, KEPT))
    assert (action, ends(answer)[2]) == (REDIRECT, other)


@pytest.mark.parametrize(("version", "source"), NOWHERE)
@pytest.mark.parametrize("here", [False, True])
def test_who_says_to_come_from_where_nobody_is_gets_nothing(road: Road, version: int, source: str, here: bool) -> None:
    own = {4: str(road.device.address4), 6: str(road.device.address6)}
    road.open(version, (own if here else ELSEWHERE)[version], protocol=UDP)
    assert road.arrives(udp(source, 53, HOST[version], 30080)).action == SHOT
    assert (road.reasons(), road.rows()) == ([SPOOFED_SOURCE], 0)


@families
def test_a_port_that_the_host_takes_is_the_hosts(road: Road, version: int) -> None:
    port = ends(road.begin(version, TCP))[1]
    road.leaves(tcp(HOST[version], port, ELSEWHERE[version], 8080), forwarded=False)
    assert road.rows() == 0


@families
def test_nothing_is_forwarded_for_a_service_that_is_gone(road: Road, version: int) -> None:
    road.begin(version, UDP)
    road.services.stop(HOST[version], 30080, UDP, scope=OUTSIDE)
    again = road.asks(version, UDP)
    assert road.arrives(again) == (UNSPEC, again)


def test_no_mutation_of_a_packet_does_more_than_go_on_pass_or_drop(road: Road) -> None:
    tries: list[tuple[bytes, Way]] = []
    for version in (4, 6):
        client, host, away = WORLD[version], HOST[version], ELSEWHERE[version]
        for protocol in (TCP, UDP, SCTP):
            road.open(version, away, protocol=protocol)
        asked = list(frames(client, 5000, host, 30080))
        left = [got for action, got in map(road.arrives, asked) if action == REDIRECT]
        ports = {ends(one)[1] for one in left}
        answers = [one for port in sorted(ports) for one in frames(away, 8080, host, port)]
        back = [got for action, got in map(road.arrives, answers) if action == REDIRECT]
        tries += [(frame, road.arrives) for frame in (*asked, *answers)]
        tries += [(frame, road.leaves) for frame in (*left, *back)]
        tries += [(frame, road.arrives) for frame in errors(away, host, iter(left))]
        tries += [(frame, road.arrives) for frame in errors(client, host, iter(back))]
    survive(road.datapath, tries, {UNSPEC, SHOT, REDIRECT})
