"""Services from outside, at a node device: to a backend and back, whoever may, and what becomes of flows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.model.datapath import Verdict

from .gate import HOST, WORLD, ends, error, is_whole
from .harness import REDIRECT, SHOT, UNSPEC, Allow, Harness
from .mutations import Way, errors, frames, survive
from .packets import ACK, RST, SCTP, SYN, TCP, UDP, ip, sctp, tcp
from .services import OUTSIDE
from .shop import ELSEWHERE, LOAD_BALANCER, Shop, at, made_shop, packet

families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
UNTRANSLATABLE, NO_BACKEND, NOT_ADMITTED = 14, 18, 19  # enum reason
LONG = 10_000  # ticks: more than anything but an established connection lasts


@pytest.fixture
def shop(datapath: Harness) -> Iterator[Shop]:
    with made_shop(datapath) as made:
        yield made


@families
@protocols
def test_a_client_reaches_a_backend_here_and_gets_the_services_answer(shop: Shop, version: int, protocol: int) -> None:
    backend = shop.address(version)
    shop.open(version, backend, protocol=protocol)
    for address, port in ((HOST[version], 30080), (LOAD_BALANCER[version], 80)):
        action, got = shop.arrives(packet(protocol, WORLD[version], 5000 + port, address, port))
        assert (action, ends(got)) == (UNSPEC, (WORLD[version], 5000 + port, backend, 8080))
        assert is_whole(got)
        action, answer = shop.leaves(packet(protocol, backend, 8080, WORLD[version], 5000 + port, SYN | ACK))
        assert (action, ends(answer)) == (UNSPEC, (address, port, WORLD[version], 5000 + port))
        assert is_whole(answer)


@families
@protocols
def test_a_backend_elsewhere_answers_this_host(shop: Shop, version: int, protocol: int) -> None:
    backend, client, host = ELSEWHERE[version], WORLD[version], HOST[version]
    shop.open(version, backend, protocol=protocol)
    came = shop.arrives(packet(protocol, client, 5000, host, 30080))[1]
    action, left = shop.leaves(came)
    source, port, *target = ends(left)
    assert (action, source, target) == (UNSPEC, host, [backend, 8080])
    assert port != 5000
    assert is_whole(left)
    action, back = shop.arrives(packet(protocol, backend, 8080, host, port, SYN | ACK))
    assert (action, ends(back)) == (UNSPEC, (backend, 8080, client, 5000))
    action, answer = shop.leaves(back)
    assert (action, ends(answer)) == (UNSPEC, (host, 30080, client, 5000))
    assert is_whole(answer)
    assert ends(shop.leaves(shop.arrives(packet(protocol, client, 5000, host, 30080, ACK))[1])[1]) == ends(left)


@families
def test_a_connection_whose_opener_is_silent_after_the_answer_is_soon_forgotten(shop: Shop, version: int) -> None:
    backend, client, host = ELSEWHERE[version], WORLD[version], HOST[version]
    shop.open(version, backend)
    left = shop.leaves(shop.arrives(tcp(client, 5000, host, 30080))[1])[1]
    shop.leaves(shop.arrives(tcp(backend, 8080, host, ends(left)[1], SYN | ACK))[1])
    opening = _expiries(shop)
    shop.leaves(shop.arrives(tcp(client, 5000, host, 30080, ACK))[1])
    assert len(opening) == 4
    assert min(_expiries(shop)) > max(opening) + LONG


def _expiries(shop: Shop) -> list[int]:
    return [int(one) for one in shop.datapath.maps.open("translations").read()[1]["expires"]]


@families
@protocols
def test_errors_about_a_flow_speak_of_what_their_receiver_knows(shop: Shop, version: int, protocol: int) -> None:
    backend, client, host = ELSEWHERE[version], WORLD[version], HOST[version]
    shop.open(version, backend, protocol=protocol)
    sent = packet(protocol, client, 5000, host, 30080)
    left = shop.leaves(shop.arrives(sent)[1])[1]
    told = shop.leaves(shop.arrives(error(version, backend, host, left))[1])[1]
    assert is_whole(told)
    assert ends(told)[2] == client
    assert ends(_quoted(told)) == ends(sent)


@families
@protocols
def test_an_error_of_a_client_reaches_the_backend(shop: Shop, version: int, protocol: int) -> None:
    backend, client = shop.address(version), WORLD[version]
    shop.open(version, backend, protocol=protocol)
    shop.arrives(packet(protocol, client, 5000, HOST[version], 30080))
    answer = packet(protocol, backend, 8080, client, 5000)
    told = shop.arrives(error(version, client, HOST[version], shop.leaves(answer)[1]))[1]
    assert is_whole(told)
    assert ends(told)[2] == backend
    assert ends(_quoted(told)) == ends(answer)


def _quoted(packet: bytes) -> bytes:
    return packet[:14] + packet[42 if packet[12:14] == b"\x08\x00" else 62 :]


@families
def test_a_backend_on_the_host_itself_is_guarded_by_its_rules(shop: Shop, version: int) -> None:
    client, host = WORLD[version], HOST[version]
    shop.open(version, host)
    shop.datapath.become_usual(
        [Allow(1, verdict=Verdict.DEFAULT_DENY), Allow(1, protocol=TCP, port=8080), Allow(1, egress=True)]
    )
    action, got = shop.arrives(tcp(client, 5000, host, 30080))
    assert (action, ends(got)) == (UNSPEC, (client, 5000, host, 8080))
    action, answer = shop.leaves(tcp(host, 8080, client, 5000, SYN | ACK), forwarded=False)
    assert (action, ends(answer)) == (UNSPEC, (host, 30080, client, 5000))
    shop.datapath.become_usual([Allow(1, verdict=Verdict.DEFAULT_DENY), Allow(1, egress=True)])
    assert shop.arrives(tcp(client, 5001, host, 30080))[0] == SHOT


@families
def test_only_those_of_the_source_ranges_are_served(shop: Shop, version: int) -> None:
    network = {4: "203.0.113.8/29", 6: "2001:db8::8/125"}[version]
    other = {4: "203.0.113.200", 6: "2001:db8::ffff"}[version]
    shop.open(version, shop.address(version), sources=(network,))
    assert ends(shop.arrives(tcp(WORLD[version], 5000, HOST[version], 30080))[1])[2] == shop.address(version)
    assert shop.arrives(tcp(other, 5000, HOST[version], 30080))[0] == SHOT
    assert shop.reasons() == [NOT_ADMITTED]


@families
@protocols
def test_clients_of_a_service_without_backends_are_told(shop: Shop, version: int, protocol: int) -> None:
    shop.open(version, protocol=protocol)
    sent = packet(protocol, WORLD[version], 5000, HOST[version], 30080)
    action, told = shop.arrives(sent)
    assert (action, is_whole(told)) == (REDIRECT, True)
    assert (told[:6], told[6:12]) == (sent[6:12], sent[:6])
    assert ends(told)[::2] == (HOST[version], WORLD[version])
    assert ends(_quoted(told)) == ends(sent)
    assert shop.reasons() == [NO_BACKEND]


@families
def test_an_association_of_a_dead_backend_reaches_another_one_which_aborts_it(shop: Shop, version: int) -> None:
    sent = sctp(WORLD[version], 5000, HOST[version], 30080)
    shop.open(version, shop.address(version), protocol=SCTP)
    shop.arrives(sent)
    shop.open(version, ELSEWHERE[version], protocol=SCTP)
    shop.services.kill(at(shop.address(version), 8080), SCTP)
    assert ends(shop.arrives(sent)[1])[2] == ELSEWHERE[version]


def test_an_association_in_fragments_keeps_its_ports(shop: Shop) -> None:
    shop.open(4, shop.address(4), protocol=SCTP)
    whole = sctp(WORLD[4], 5000, HOST[4], 30080, bytes(36))[34:]
    first = ip(WORLD[4], HOST[4], SCTP, whole[:24], fragment=0x2000)
    assert shop.arrives(first)[0] == SHOT
    assert shop.reasons() == [UNTRANSLATABLE]
    shop.services.serve(HOST[4], 30080, [at(shop.address(4), 30080)], protocol=SCTP, scope=OUTSIDE)
    shop.datapath.maps.open("translations").delete(shop.datapath.maps.open("translations").read()[0])
    assert shop.arrives(first)[1][34:] == whole[:24]
    later = ip(WORLD[4], HOST[4], SCTP, whole[24:], fragment=3)
    assert ends(shop.arrives(later)[1])[2] == shop.address(4)


@families
def test_a_flow_keeps_its_backend_when_the_service_has_others(shop: Shop, version: int) -> None:
    client, host = WORLD[version], HOST[version]
    shop.open(version, shop.address(version))
    shop.arrives(tcp(client, 5000, host, 30080))
    shop.open(version, ELSEWHERE[version])
    assert ends(shop.arrives(tcp(client, 5000, host, 30080, ACK))[1])[2] == shop.address(version)
    assert ends(shop.arrives(tcp(client, 5001, host, 30080))[1])[2] == ELSEWHERE[version]


@families
def test_a_flow_of_a_dead_backend_ends_and_its_next_connection_has_another(shop: Shop, version: int) -> None:
    client, host = WORLD[version], HOST[version]
    shop.open(version, shop.address(version))
    shop.arrives(tcp(client, 5000, host, 30080))
    shop.open(version, ELSEWHERE[version])
    shop.services.kill(at(shop.address(version), 8080))
    shop.arrives(tcp(client, 5000, host, 30080, ACK))
    assert shop.reasons() == [NO_BACKEND]
    assert ends(shop.arrives(tcp(client, 5000, host, 30080))[1])[2] == ELSEWHERE[version]


@families
def test_datagrams_end_with_their_frontend_and_whoever_has_the_port_then_gets_them(shop: Shop, version: int) -> None:
    client, host = WORLD[version], HOST[version]
    shop.open(version, shop.address(version), protocol=UDP)
    again = packet(UDP, client, 5000, host, 30080)
    assert ends(shop.arrives(again)[1])[2] == shop.address(version)
    shop.services.stop(host, 30080, UDP, scope=OUTSIDE)
    assert shop.arrives(again) == (UNSPEC, again)


@families
def test_a_frontend_that_is_gone_keeps_its_connections_and_gets_no_new_ones(shop: Shop, version: int) -> None:
    client, host = WORLD[version], HOST[version]
    shop.open(version, shop.address(version))
    shop.arrives(tcp(client, 5000, host, 30080))
    shop.services.stop(host, 30080, scope=OUTSIDE)
    assert ends(shop.arrives(tcp(client, 5000, host, 30080, ACK))[1])[2] == shop.address(version)
    fresh = tcp(client, 5001, host, 30080)
    assert shop.arrives(fresh) == (UNSPEC, fresh)


@families
def test_two_frontends_never_mix_one_clients_flows_to_a_backend(shop: Shop, version: int) -> None:
    client = WORLD[version]
    shop.open(version, shop.address(version))
    assert shop.arrives(tcp(client, 5000, HOST[version], 30080))[0] == UNSPEC
    assert shop.arrives(tcp(client, 5000, LOAD_BALANCER[version], 80))[0] == SHOT
    shop.arrives(tcp(client, 5000, HOST[version], 30080, RST))
    assert shop.arrives(tcp(client, 5000, LOAD_BALANCER[version], 80))[0] == UNSPEC


@families
def test_clients_spread_over_backends(shop: Shop, version: int) -> None:
    shop.open(version, *(shop.address(version, one) for one in shop.datapath.devices[:2]), ELSEWHERE[version])
    found = [ends(shop.arrives(tcp(WORLD[version], port, HOST[version], 30080))[1])[2] for port in range(1000, 1300)]
    assert min(found.count(one) for one in set(found)) > 60
    assert len(set(found)) == 3


def test_no_mutation_of_a_packet_does_more_than_pass_drop_or_tell_the_client(shop: Shop) -> None:
    tries: list[tuple[bytes, Way]] = []
    for version in (4, 6):
        client, host, here, away = WORLD[version], HOST[version], shop.address(version), ELSEWHERE[version]
        for protocol in (TCP, UDP, SCTP):
            shop.open(version, here, away, protocol=protocol)
            shop.services.serve(host, 30081, [], protocol=protocol, scope=OUTSIDE)
        for port in range(5000, 5004):
            asked = list(frames(client, port, host, 30080))
            came = [got for action, got in map(shop.arrives, asked) if action == UNSPEC]
            left = [got for action, got in map(shop.leaves, came) if action == UNSPEC]
            tries += [(frame, shop.arrives) for frame in asked]
            tries += [(frame, shop.leaves) for frame in (*came, *frames(here, 8080, client, port))]
            tries += [(frame, shop.arrives) for frame in errors(away, host, iter(left))]
            tries += [(frame, shop.leaves) for frame in errors(here, client, iter(came))]
        tries += [(frame, shop.arrives) for frame in frames(client, 5000, host, 30081)]
    survive(shop.datapath, tries, {UNSPEC, SHOT, REDIRECT})
