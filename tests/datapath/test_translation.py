"""Services packet by packet: what a workload sends reaches a backend, and what it gets comes from the service."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from reconciler.model.datapath import Verdict

from .harness import REDIRECT, SHOT, UNSPEC, Allow, Device, Harness, Ran
from .mutations import Way, errors, frames, survive
from .packets import ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP, checksum, ip, sctp, tcp, udp
from .services import DRAINING, RANDOM, Services

NO_BACKEND, UNTRANSLATABLE, FRAGMENT_UNKNOWN, SPOOFED, POLICY_DEFAULT = 18, 14, 8, 4, 1  # enum reason
SERVICE_DROP = 1
VIP = {4: "10.96.0.1", 6: "fd96::1"}
ROUTER = {4: "10.9.9.9", 6: "fd09::9"}
SYN_ACK = SYN | ACK
families = pytest.mark.parametrize("version", [4, 6])
both = pytest.mark.parametrize(("version", "protocol"), [(4, TCP), (6, TCP), (4, UDP), (6, UDP)])


class Shop:
    """The first workload is the client; the others are backends at port 8080 of a service at port 80."""

    def __init__(self, datapath: Harness, services: Services, version: int) -> None:
        self.datapath, self.services, self.version = datapath, services, version
        self.client, self.server, self.other = datapath.devices
        self.vip = VIP[version]
        datapath.become_usual([Allow(one.identity, egress=way, cookie=0) for one in datapath.devices for way in (0, 1)])

    def address(self, device: Device) -> str:
        return str(device.address4 if self.version == 4 else device.address6)

    def backend(self, device: Device, port: int = 8080) -> str:
        address = self.address(device)
        return f"{address}:{port}" if self.version == 4 else f"[{address}]:{port}"

    def serve(self, *devices: Device, protocol: int = TCP, **more: int) -> None:
        self.services.serve(self.vip, 80, [self.backend(one) for one in devices], protocol=protocol, **more)

    def asks(self, sport: int = 1000, flags: int = SYN, protocol: int = TCP, data: bytes = b"") -> tuple[int, bytes]:
        client = self.address(self.client)
        packet = (
            tcp(client, sport, self.vip, 80, flags, data) if protocol == TCP else udp(client, sport, self.vip, 80, data)
        )
        return self.datapath.sent(packet, self.client)

    def answers(
        self, device: Device, dport: int = 1000, flags: int = SYN_ACK, protocol: int = TCP
    ) -> tuple[int, bytes]:
        source, client = self.address(device), self.address(self.client)
        packet = (
            tcp(source, 8080, client, dport, flags) if protocol == TCP else udp(source, 8080, client, dport, b"yes")
        )
        return self.datapath.sent(packet, device)

    def chosen(self, ran: tuple[int, bytes]) -> Device:
        """The backend that a packet goes to."""
        assert ran[0] == REDIRECT
        addresses = {self.address(device): device for device in self.datapath.devices}
        return addresses[ends(ran[1])[2]]

    def reasons(self) -> list[int]:
        return list(self.datapath.events()["reason"].tolist())


@pytest.fixture
def services(datapath: Harness) -> Iterator[Services]:
    made = Services(datapath.maps)
    made.clear()
    yield made
    made.clear()


@pytest.fixture
def shop(datapath: Harness, services: Services, version: int) -> Shop:
    return Shop(datapath, services, version)


def ends(packet: bytes) -> tuple[str, int, str, int]:
    """Source and destination; every checksum is right."""
    length, at = (4, 26) if packet[12:14] == b"\x08\x00" else (16, 22)
    source, destination = packet[at : at + length], packet[at + length : at + 2 * length]
    body = packet[at + 2 * length :]
    protocol = packet[23] if length == 4 else packet[20]
    if length == 4:
        assert checksum(packet[14:34]) == 0
    if protocol != ICMP:
        assert checksum(source + destination + struct.pack("!IxxxB", len(body), protocol) + body) == 0
    else:
        assert checksum(body) == 0
    sport, dport = struct.unpack_from("!HH", body)
    return str(ip_address(source)), sport, str(ip_address(destination)), dport


@both
def test_a_packet_reaches_the_backend_and_its_answer_comes_from_the_service(shop: Shop, protocol: int) -> None:
    shop.serve(shop.server, protocol=protocol)
    client, server = shop.address(shop.client), shop.address(shop.server)
    for flags in (SYN, ACK):
        action, there = shop.asks(flags=flags, protocol=protocol)
        assert (action, ends(there)) == (REDIRECT, (client, 1000, server, 8080))
        action, back = shop.answers(shop.server, protocol=protocol)
        assert (action, ends(back)) == (REDIRECT, (shop.vip, 80, client, 1000))


@both
def test_an_answer_from_elsewhere_comes_from_the_service_too(shop: Shop, protocol: int) -> None:
    away = "192.0.2.7" if shop.version == 4 else "2001:db8::7"
    name = f"{away}:8080" if shop.version == 4 else f"[{away}]:8080"
    shop.services.serve(shop.vip, 80, [name], protocol=protocol)
    client = shop.address(shop.client)
    action, there = shop.asks(protocol=protocol)
    assert (action, ends(there)) == (UNSPEC, (client, 1000, away, 8080))
    packet = tcp(away, 8080, client, 1000, SYN_ACK) if protocol == TCP else udp(away, 8080, client, 1000)
    for _ in range(2):
        action, back = shop.datapath.received(packet, shop.client, ingress_ifindex=1)
        assert (action, ends(back)) == (UNSPEC, (shop.vip, 80, client, 1000))


@families
def test_an_answer_is_translated_when_it_is_judged_again(shop: Shop) -> None:
    shop.serve(shop.server)
    shop.asks()
    shop.datapath.become(policy=[Allow(one.identity, egress=way) for one in shop.datapath.devices for way in (0, 1)])
    action, back = shop.answers(shop.server)
    assert (action, ends(back)[:2]) == (REDIRECT, (shop.vip, 80))
    shop.datapath.become(policy=[Allow(one.identity, egress=way) for one in shop.datapath.devices for way in (1, 0)])
    assert shop.chosen(shop.asks(flags=ACK)) is shop.server


@families
def test_policy_is_judged_for_the_backend(shop: Shop) -> None:
    shop.serve(shop.server)
    rows = [Allow(shop.client.identity, egress=True), Allow(shop.server.identity, verdict=Verdict.DEFAULT_DENY)]
    shop.datapath.become(policy=rows)
    shop.datapath.events()
    assert shop.asks()[0] == SHOT
    (event,) = shop.datapath.events()
    assert (event["reason"], event["destination_identity"]) == (POLICY_DEFAULT, shop.server.identity)
    shop.datapath.become(policy=[*rows, Allow(shop.server.identity, shop.client.identity, protocol=TCP, port=8080)])
    assert shop.chosen(shop.asks()) is shop.server


@families
def test_datagrams_end_with_their_frontend(shop: Shop) -> None:
    shop.serve(shop.server, protocol=UDP)
    shop.asks(protocol=UDP)
    shop.services.stop(shop.vip, 80, UDP)
    action, packet = shop.asks(protocol=UDP)
    assert (action, ends(packet)[2]) == (UNSPEC, shop.vip)


@families
def test_a_flow_keeps_its_backend_whatever_the_service_becomes(shop: Shop) -> None:
    shop.serve(shop.server)
    shop.asks()
    shop.serve(shop.other)
    assert shop.chosen(shop.asks(flags=ACK)) is shop.server
    shop.services.stop(shop.vip, 80)
    assert shop.chosen(shop.asks(flags=ACK)) is shop.server


@families
def test_a_draining_backend_keeps_its_flows_and_gets_no_new_ones(shop: Shop) -> None:
    shop.serve(shop.server)
    shop.asks(1000)
    shop.services.know(shop.backend(shop.server), flags=DRAINING)
    shop.serve(shop.other)
    assert shop.chosen(shop.asks(1000, flags=ACK)) is shop.server
    assert shop.chosen(shop.asks(1001)) is shop.other
    assert shop.chosen(shop.asks(1000)) is shop.other


@families
def test_a_connection_to_a_dead_backend_ends_and_the_next_one_goes_elsewhere(shop: Shop) -> None:
    shop.serve(shop.server)
    shop.asks()
    shop.services.kill(shop.backend(shop.server))
    shop.serve(shop.other)
    shop.datapath.events()
    shop.asks(flags=ACK)
    assert shop.reasons() == [NO_BACKEND]
    assert shop.chosen(shop.asks()) is shop.other


@families
def test_datagrams_to_a_dead_backend_go_elsewhere(shop: Shop) -> None:
    shop.serve(shop.server, protocol=UDP)
    shop.asks(protocol=UDP)
    shop.services.kill(shop.backend(shop.server), UDP)
    shop.serve(shop.other, protocol=UDP)
    assert shop.chosen(shop.asks(protocol=UDP)) is shop.other


@both
def test_who_asks_a_service_without_backends_is_told(shop: Shop, protocol: int) -> None:
    shop.serve(protocol=protocol)
    asked = shop.asks(protocol=protocol)
    client = shop.address(shop.client)
    assert asked[0] == REDIRECT
    assert shop.reasons() == [NO_BACKEND]
    source, _, destination, _ = ends(asked[1])
    assert (source, destination) == (shop.vip, client)
    message = asked[1][34:] if shop.version == 4 else asked[1][54:]
    quoted = message[28:] if shop.version == 4 else message[48:]
    assert message[:2] == (b"\x03\x03" if shop.version == 4 else b"\x01\x04")
    assert struct.unpack_from("!HH", quoted) == (1000, 80)


@families
def test_a_service_may_be_silent_without_backends(shop: Shop) -> None:
    shop.serve(flags=SERVICE_DROP)
    assert shop.asks()[0] == SHOT


@families
def test_flows_are_spread_by_their_hash_and_by_chance(shop: Shop) -> None:
    for algorithm in (0, RANDOM):
        shop.serve(shop.server, shop.other, algorithm=algorithm)
        reached = Counter(shop.chosen(shop.asks(sport)).ifname for sport in range(2000, 2200))
        assert min(reached.values()) > 60


@families
def test_weights_are_shares(shop: Shop) -> None:
    names = [shop.backend(shop.server), shop.backend(shop.other)]
    shop.services.serve(shop.vip, 80, names, weights={names[0]: 4})
    reached = Counter(shop.chosen(shop.asks(sport)).ifname for sport in range(2000, 2300))
    assert 2 < reached[shop.server.ifname] / reached[shop.other.ifname] < 8


@families
def test_a_client_keeps_its_backend_for_a_while(shop: Shop) -> None:
    shop.serve(shop.server, shop.other, affinity_s=1000)
    (kept,) = {shop.chosen(shop.asks(sport)) for sport in range(2000, 2020)}
    shop.serve(shop.other, shop.server, affinity_s=1000)
    assert {shop.chosen(shop.asks(sport)) for sport in range(2020, 2030)} == {kept}
    affinities = shop.datapath.maps.open("affinities")
    keys, values = affinities.read()
    values["expires"] = 0
    affinities.update(keys, values)
    assert len({shop.chosen(shop.asks(sport)) for sport in range(2100, 2101)}) == 1


@both
def test_a_workload_may_be_its_own_backend(shop: Shop, protocol: int) -> None:
    shop.serve(shop.client, protocol=protocol)
    client = shop.address(shop.client)
    for flags in (SYN, ACK):
        action, there = shop.asks(flags=flags, protocol=protocol)
        assert (action, ends(there)) == (REDIRECT, (shop.vip, 1000, client, 8080))
        packet = tcp(client, 8080, shop.vip, 1000, SYN_ACK) if protocol == TCP else udp(client, 8080, shop.vip, 1000)
        action, back = shop.datapath.sent(packet, shop.client)
        assert (action, ends(back)) == (REDIRECT, (shop.vip, 80, client, 1000))


@families
def test_a_source_that_is_not_the_senders_reaches_no_backend(shop: Shop) -> None:
    shop.serve(shop.server)
    packet = tcp(shop.address(shop.other), 1000, shop.vip, 80)
    assert shop.datapath.sent(packet, shop.client).action == SHOT
    assert shop.reasons() == [SPOOFED]
    assert not len(shop.datapath.maps.open(f"service_flows{shop.version}").read()[0])
    shop.asks()
    assert shop.datapath.sent(tcp(shop.address(shop.client), 1000, shop.vip, 80, ACK), shop.other).action == SHOT


@families
def test_a_connection_past_the_service_is_not_answered_in_its_name(shop: Shop) -> None:
    shop.serve(shop.server, protocol=UDP)
    shop.asks(protocol=UDP)
    client, server = shop.address(shop.client), shop.address(shop.server)
    shop.datapath.sent(udp(client, 1000, server, 8080), shop.client)
    assert ends(shop.answers(shop.server, protocol=UDP)[1]) == (server, 8080, client, 1000)


def unreachable(shop: Shop, source: str, destination: str, quoted: bytes) -> bytes:
    """A port is unreachable, or (from a router) an address."""
    inner = quoted[14 : 14 + (28 if shop.version == 4 else 48)]
    kind = 3 if shop.version == 4 else 1
    body = struct.pack("!BBHI", kind, 3, 0, 0) + inner
    pseudo = ip_address(source).packed + ip_address(destination).packed + struct.pack("!IxxxB", len(body), ICMPV6)
    total = checksum(body if shop.version == 4 else pseudo + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return ip(source, destination, ICMP if shop.version == 4 else ICMPV6, body)


def quoted_ends(packet: bytes, version: int) -> tuple[str, int, str, int]:
    at, length = (34 + 8 + 12, 4) if version == 4 else (54 + 8 + 8, 16)
    source, destination = packet[at : at + length], packet[at + length : at + 2 * length]
    sport, dport = struct.unpack_from("!HH", packet, at + 2 * length)
    return str(ip_address(source)), sport, str(ip_address(destination)), dport


@families
def test_an_error_about_a_request_speaks_of_the_service(shop: Shop) -> None:
    shop.serve(shop.server, protocol=UDP)
    _, there = shop.asks(protocol=UDP)
    client, server = shop.address(shop.client), shop.address(shop.server)
    ran = shop.datapath.sent(unreachable(shop, server, client, there), shop.server)
    source, _, destination, _ = ends(ran.packet)
    assert (ran.action, source, destination) == (REDIRECT, shop.vip, client)
    assert quoted_ends(ran.packet, shop.version) == (client, 1000, shop.vip, 80)
    ran = shop.datapath.received(unreachable(shop, ROUTER[shop.version], client, there), shop.client, ingress_ifindex=1)
    assert (ran.action, ends(ran.packet)[0]) == (UNSPEC, ROUTER[shop.version])
    assert quoted_ends(ran.packet, shop.version) == (client, 1000, shop.vip, 80)


@families
def test_an_error_about_an_answer_reaches_the_backend(shop: Shop) -> None:
    shop.serve(shop.server, protocol=UDP)
    shop.asks(protocol=UDP)
    _, back = shop.answers(shop.server, protocol=UDP)
    client, server = shop.address(shop.client), shop.address(shop.server)
    ran = shop.datapath.sent(unreachable(shop, client, shop.vip, back), shop.client)
    assert (ran.action, ends(ran.packet)[2]) == (REDIRECT, server)
    assert quoted_ends(ran.packet, shop.version) == (server, 8080, client, 1000)


def test_fragments_go_where_the_first_one_went(datapath: Harness, services: Services) -> None:
    shop = Shop(datapath, services, 4)
    shop.serve(shop.server, protocol=UDP)
    client, server = shop.address(shop.client), shop.address(shop.server)
    whole = udp(client, 1000, shop.vip, 80, bytes(48))[34:]
    first = ip(client, shop.vip, UDP, whole[:32], fragment=0x2000)
    later = ip(client, shop.vip, UDP, whole[32:], fragment=4)
    assert datapath.sent(later, shop.client).action == SHOT
    parts = [datapath.sent(part, shop.client) for part in (first, later)]
    assert [part.action for part in parts] == [REDIRECT, REDIRECT]
    joined = b"".join(part.packet[34:] for part in parts)
    assert ends(ip(client, server, UDP, joined)) == (client, 1000, server, 8080)
    assert {part.packet[30:34] for part in parts} == {ip_address(server).packed}
    whole = udp(server, 8080, client, 1000, bytes(48))[34:]
    parts = [
        datapath.sent(ip(server, client, UDP, whole[:32], fragment=0x2000), shop.server),
        datapath.sent(ip(server, client, UDP, whole[32:], fragment=4), shop.server),
    ]
    joined = b"".join(part.packet[34:] for part in parts)
    assert ends(ip(shop.vip, client, UDP, joined)) == (shop.vip, 80, client, 1000)
    assert {part.packet[26:30] for part in parts} == {ip_address(shop.vip).packed}


@families
def test_a_closed_connection_is_forgotten_soon(shop: Shop) -> None:
    shop.serve(shop.server)
    for flags in (SYN, ACK):
        shop.asks(flags=flags)
    flows = shop.datapath.maps.open(f"service_flows{shop.version}")
    (open_,) = flows.read()[1]["expires"]
    shop.asks(flags=FIN | ACK)
    (closing,) = flows.read()[1]["expires"]
    shop.asks(flags=RST)
    (closed,) = flows.read()[1]["expires"]
    assert open_ > closing > closed


@families
@pytest.mark.parametrize("length", [0, 16, 1001])
def test_an_association_reaches_the_backend_with_a_right_checksum(shop: Shop, length: int) -> None:
    shop.serve(shop.server, protocol=SCTP)
    client, server, data = shop.address(shop.client), shop.address(shop.server), bytes(range(251)) * 4
    data, start = data[:length], 34 if shop.version == 4 else 54
    there = shop.datapath.sent(sctp(client, 1000, shop.vip, 80, data), shop.client)
    assert (there.action, there.packet[start:]) == (REDIRECT, sctp(client, 1000, server, 8080, data)[start:])
    back = shop.datapath.sent(sctp(server, 8080, client, 1000, data), shop.server)
    assert (back.action, back.packet[start:]) == (REDIRECT, sctp(shop.vip, 80, client, 1000, data)[start:])


@families
def test_a_checksum_that_the_device_is_to_fill_in_stays_empty(shop: Shop) -> None:
    shop.serve(shop.server, protocol=SCTP)
    frame = bytearray(sctp(shop.address(shop.client), 1000, shop.vip, 80))
    at = 42 if shop.version == 4 else 62
    frame[at : at + 4] = bytes(4)
    there = shop.datapath.sent(bytes(frame), shop.client)
    assert (there.action, there.packet[at : at + 4]) == (REDIRECT, bytes(4))


def test_an_association_in_fragments_keeps_its_ports(datapath: Harness, services: Services) -> None:
    shop = Shop(datapath, services, 4)
    whole = sctp(shop.address(shop.client), 1000, shop.vip, 80, bytes(36))[34:]
    first = ip(shop.address(shop.client), shop.vip, SCTP, whole[:24], fragment=0x2000)
    later = ip(shop.address(shop.client), shop.vip, SCTP, whole[24:], fragment=3)
    shop.serve(shop.server, protocol=SCTP)
    datapath.events()
    assert datapath.sent(first, shop.client).action == SHOT
    assert datapath.sent(later, shop.client).action == SHOT
    assert shop.reasons() == [UNTRANSLATABLE, FRAGMENT_UNKNOWN]
    shop.services.kill(shop.backend(shop.server), SCTP)
    shop.services.serve(shop.vip, 80, [shop.backend(shop.server, 80)], protocol=SCTP)
    assert [datapath.sent(part, shop.client).packet[34:] for part in (first, later)] == [whole[:24], whole[24:]]


def test_established_flows_to_living_backends_never_break(datapath: Harness, services: Services) -> None:
    """Backends come, drain, die and come back, as any order of events has it."""
    shop, chance = Shop(datapath, services, 4), random.Random(7)
    devices = list(datapath.devices[1:])
    alive = {f"{shop.address(device)}:{port}" for device in devices for port in range(8000, 8008)}
    every, used = sorted(alive), dict[int, str]()
    for turn in range(300):
        if turn % 3 == 0:
            gone = chance.choice(every)
            if gone in alive and len(alive) > 4:
                alive.discard(gone)
                services.know(gone)
                services.kill(gone)
            else:
                alive.add(gone)
            services.serve(shop.vip, 80, sorted(alive))
        sport = 3000 + turn
        _, _, address, port = ends(shop.asks(sport)[1])
        used[sport] = f"{address}:{port}"
        assert used[sport] in alive
        for old in chance.sample(sorted(used), min(len(used), 5)):
            action, packet = shop.asks(old, flags=ACK)
            if used[old] in alive:
                assert action == REDIRECT
                assert "{2}:{3}".format(*ends(packet)) == used[old]


def test_no_mutation_of_a_packet_does_more_than_pass_drop_or_tell_the_client(
    datapath: Harness, services: Services
) -> None:
    tries: list[tuple[bytes, Way]] = []
    client, server, other = datapath.devices

    def is_sent(frame: bytes) -> Ran:
        return datapath.sent(frame, client)

    def is_answered(frame: bytes) -> Ran:
        return datapath.sent(frame, server)

    def is_received(frame: bytes) -> Ran:
        return datapath.received(frame, client, ingress_ifindex=1)

    for version in (4, 6):
        shop = Shop(datapath, services, version)
        mine, its, router = shop.address(client), shop.address(server), ROUTER[version]
        for protocol in (TCP, UDP, SCTP):
            shop.serve(server, protocol=protocol)
            services.serve(shop.vip, 81, [shop.backend(client)], protocol=protocol)
            services.serve(shop.vip, 82, [], protocol=protocol)
            services.serve(shop.vip, 83, [shop.backend(other)], protocol=protocol)
        asked = list(frames(mine, 1000, shop.vip, 80))
        there = [got for action, got in map(is_sent, asked) if action == REDIRECT]
        tries += [(frame, is_sent) for frame in asked]
        tries += [(frame, is_answered) for frame in frames(its, 8080, mine, 1000)]
        tries += [(frame, is_sent) for frame in errors(mine, shop.vip, frames(shop.vip, 80, mine, 1000))]
        tries += [(frame, is_answered) for frame in errors(its, mine, iter(there))]
        tries += [(frame, is_received) for frame in errors(router, mine, iter(there))]
        for port in (81, 82, 83):
            tries += [(frame, is_sent) for frame in frames(mine, 1000 + port, shop.vip, port)]
        tries += [(frame, is_sent) for frame in frames(mine, 8080, shop.vip, 1081)]
        for port in (81, 83):
            for frame in frames(mine, 1000 + port, shop.vip, port):
                is_sent(frame)
        for protocol in (TCP, UDP, SCTP):
            services.kill(shop.backend(other), protocol)
    survive(datapath, tries, {UNSPEC, SHOT, REDIRECT})
