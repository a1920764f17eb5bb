"""Connections that have lost their backend: a workload's and a client's outside are told so in the service's name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from reconciler.observe import counters
from reconciler.observe.flow import Reason

from .gate import WORLD, ends, error, is_whole
from .harness import REDIRECT, SHOT, Allow, Harness, Ran
from .packets import ACK, FIN, RST, TCP, ip, segment, tcp
from .services import INSIDE, OUTSIDE, Services
from .shop import ELSEWHERE, LOAD_BALANCER, at, made_shop

SERVICE_DROP = 1
families = pytest.mark.parametrize("version", [4, 6])
DESTINATION_OPTIONS = 60


@dataclass(frozen=True, slots=True)
class Lost:
    """A connection from port 5000 to port 80 of a service, whose backend has died."""

    datapath: Harness
    services: Services
    version: int
    client: str
    scope: int
    ask: Callable[[bytes], Ran]

    @property
    def service(self) -> str:
        return LOAD_BALANCER[self.version]

    def begin(self) -> None:
        backend = at(ELSEWHERE[self.version], 8080)
        self.services.serve(self.service, 80, [backend], scope=self.scope)
        self.ask(tcp(self.client, 5000, self.service, 80))
        self.services.kill(backend)
        self.datapath.events()

    def told(self, flags: int, data: bytes = b"", seq: int = 1, ack: int = 1) -> Ran:
        body = segment(self.client, 5000, self.service, 80, flags, data, seq, ack)
        return self.ask(ip(self.client, self.service, TCP, body))

    def refused(self) -> int:
        return counters.read(self.datapath.maps.open("counters")).by_reason[Reason.NO_BACKEND].packets


@pytest.fixture(params=["inside", "outside"])
def lost(request: pytest.FixtureRequest, datapath: Harness, version: int) -> Iterator[Lost]:
    with made_shop(datapath) as shop:
        if request.param == "outside":
            made = Lost(
                datapath, shop.services, version, WORLD[version], OUTSIDE, lambda packet: Ran(*shop.arrives(packet))
            )
            made.begin()
            yield made
            return
        sender = shop.sender
        datapath.become_usual([Allow(sender.identity, egress=way) for way in (False, True)])
        program = datapath.by_name["from_workload"]
        made = Lost(
            datapath, shop.services, version, shop.address(version), INSIDE,
            lambda packet: datapath.try_on(program, packet, sender.ifindex),
        )  # fmt: skip
        made.begin()
        yield made


def reset_of(lost: Lost, ran: Ran) -> tuple[int, int, int]:
    """Sequence number, acknowledgement and flags of a reset in the service's name, which is whole."""
    assert (ran.action, is_whole(ran.packet)) == (REDIRECT, True)
    assert ends(ran.packet) == (lost.service, 80, lost.client, 5000)
    body = ran.packet[34 if lost.version == 4 else 54 :]
    seq, ack, length, flags = struct.unpack_from("!IIBB", body, 4)
    assert (len(body), length) == (20, 5 << 4)
    return seq, ack, flags


@families
def test_a_connection_is_reset_where_its_client_expects_the_next_byte(lost: Lost) -> None:
    before = lost.refused()
    assert reset_of(lost, lost.told(ACK, b"odd", seq=5, ack=0xFEDCBA98)) == (0xFEDCBA98, 0, RST)
    assert lost.refused() == before + 1
    assert lost.datapath.events()["reason"].tolist() == [Reason.NO_BACKEND]


@families
@pytest.mark.parametrize(("flags", "data", "ack"), [(0, b"lost", 0), (FIN, b"", 0xFFFFFFFD), (FIN, b"x", 0xFFFFFFFE)])
def test_what_acknowledges_nothing_is_acknowledged_with_the_reset(
    lost: Lost, flags: int, data: bytes, ack: int
) -> None:
    assert reset_of(lost, lost.told(flags, data, seq=0xFFFFFFFC)) == (0, ack, RST | ACK)


@families
def test_the_frame_goes_back_where_it_came_from(lost: Lost) -> None:
    sent = tcp(lost.client, 5000, lost.service, 80, ACK)
    assert lost.ask(sent).packet[:14] == sent[6:12] + sent[:6] + sent[12:14]


@families
def test_headers_between_are_no_hindrance(lost: Lost) -> None:
    body = segment(lost.client, 5000, lost.service, 80, ACK, b"data", ack=9)
    if lost.version == 4:
        packet = ip(lost.client, lost.service, TCP, body, options=bytes([1] * 8))
    else:
        packet = ip(lost.client, lost.service, DESTINATION_OPTIONS, bytes([TCP, 0, 1, 4, 0, 0, 0, 0]) + body)
    assert reset_of(lost, lost.ask(packet)) == (9, 0, RST)


@families
def test_a_reset_is_never_answered(lost: Lost) -> None:
    for flags in (RST, RST | ACK):
        assert lost.told(flags).action == SHOT
    assert lost.datapath.events()["reason"].tolist() == [Reason.NO_BACKEND] * 2


@families
def test_an_error_is_never_answered(lost: Lost) -> None:
    about = error(lost.version, lost.client, lost.service, tcp(lost.service, 80, lost.client, 5000, ACK))
    assert lost.ask(about).action != REDIRECT


@families
def test_a_service_that_is_silent_without_backends_resets_nothing(lost: Lost) -> None:
    lost.services.serve(lost.service, 80, [], flags=SERVICE_DROP, scope=lost.scope)
    before = lost.refused()
    assert lost.told(ACK).action == SHOT
    assert lost.refused() == before + 1


@families
def test_a_connection_that_nobody_remembers_is_reset_by_a_service_without_backends(lost: Lost) -> None:
    lost.services.serve(lost.service, 80, [], scope=lost.scope)
    for name in ("translations", "service_flows4", "service_flows6"):
        map_ = lost.datapath.maps.open(name)
        map_.delete(map_.read()[0])
    assert reset_of(lost, lost.told(ACK, ack=3)) == (3, 0, RST)
    assert lost.told(RST).action == SHOT
