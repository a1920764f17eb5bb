"""What a router says of a packet that our programs wrapped: the next one that is too large is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from .brought import GENEVE, IPIP, outer
from .gate import ends, error, is_whole
from .harness import REDIRECT, UNSPEC, Ran
from .packets import UDP, udp, uncut
from .sides import CLIENT, HERE, NODE, NODE_PORT, OTHER, STRANGER, THERE, WAYS, Sides, as_new, loaded_sides

LEAST = 1280
NARROW, LARGE = 1400, 1390  # what the way carries, and bytes of a packet that it does not carry with anything around it
MINUTES_9, MINUTE = 503, 57  # ticks, rounded up
GRE, IPV4_IN_IP, IPV6_IN_IP = 47, 4, 41
families = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module", params=sorted(WAYS.keys() - {"option"}), ids=str)
def loaded(request: pytest.FixtureRequest) -> Iterator[Sides]:
    with loaded_sides(request.param) as made:
        yield made


@pytest.fixture
def sides(loaded: Sides) -> Iterator[Sides]:
    with as_new(loaded) as made:
        for version in (4, 6):
            made.open(version, protocol=UDP)
        yield made


def sends(sides: Sides, version: int, length: int = LARGE) -> Ran:
    """A client's packet of that length comes, which must not be cut."""
    data = bytes(length - (28 if version == 4 else 48))
    return sides.arrives(uncut(udp(CLIENT[version], 5000, NODE[version], NODE_PORT, data)))


def reports(sides: Sides, version: int, mtu: int, quoted: bytes = b"", to: dict[int, str] = NODE) -> Ran:
    """A router on the way to the backend drops what was sent, or what it quotes."""
    wrapped = quoted or sends(sides, version).packet
    family = 4 if sides.overlay else version
    return sides.arrives(error(family, STRANGER[family], to[family], wrapped, mtu))


def room(sides: Sides, version: int) -> int:
    """Bytes that are around a packet."""
    if sides.how == IPIP:
        return 20 if version == 4 else 40
    return {4: 48, 6: 60 if sides.overlay else 80}[version]


def said(told: bytes) -> int:
    """The MTU in an answer to a client."""
    return int.from_bytes(told[40:42] if told[12:14] == b"\x08\x00" else told[58:62])


def known(sides: Sides) -> np.ndarray[Any, Any]:
    return sides.datapath.maps.open("path_mtus").read()[1]


@families
def test_the_client_of_the_next_packet_that_is_too_large_is_told(sides: Sides, version: int) -> None:
    fits = NARROW - room(sides, version)
    assert reports(sides, version, NARROW).action == UNSPEC
    action, told = sends(sides, version)
    assert (action, is_whole(told), said(told)) == (REDIRECT, True, fits)
    assert ends(told)[::2] == (NODE[version], CLIENT[version])
    assert len(sends(sides, version, fits).packet) == 14 + NARROW
    assert said(sends(sides, version, fits + 1).packet) == fits


@families
def test_an_error_that_quotes_only_the_outer_header_is_enough(sides: Sides, version: int) -> None:
    quoted = sends(sides, version).packet
    reports(sides, version, NARROW, quoted[: 14 + (28 if quoted[12:14] == b"\x08\x00" else 48)])
    assert said(sends(sides, version).packet) == NARROW - room(sides, version)


@families
def test_a_way_gets_narrower_by_what_is_said_and_not_wider(sides: Sides, version: int) -> None:
    quoted = sends(sides, version).packet
    for mtu in (NARROW, NARROW - 20, NARROW + 20):
        reports(sides, version, mtu, quoted)
    assert said(sends(sides, version).packet) == NARROW - 20 - room(sides, version)


@families
def test_a_client_is_told_nothing_less_than_it_may_always_send(sides: Sides, version: int) -> None:
    fits = LEAST - room(sides, 4) if version == 4 else LEAST
    reports(sides, version, LEAST)
    assert len(known(sides)) == 1
    assert len(sends(sides, version, fits).packet) == 14 + fits + room(sides, version)
    assert said(sends(sides, version).packet) == fits


@families
def test_it_is_forgotten_after_ten_minutes(sides: Sides, version: int) -> None:
    reports(sides, version, NARROW)
    _later(sides, MINUTES_9)
    assert ends(sends(sides, version).packet)[0] == NODE[version]
    _later(sides, MINUTE)
    assert len(sends(sides, version).packet) == 14 + LARGE + room(sides, version)


def _later(sides: Sides, ticks: int) -> None:
    """So much of the time that it is remembered is over."""
    map_ = sides.datapath.maps.open("path_mtus")
    keys, values = map_.read()
    values["expires"] -= ticks
    map_.update(keys, values)


@families
@pytest.mark.parametrize("mtu", [0, 576, LEAST - 1])
def test_a_size_that_would_make_all_slow_is_not_believed(sides: Sides, version: int, mtu: int) -> None:
    reports(sides, version, mtu)
    assert not len(known(sides))
    assert len(sends(sides, version).packet) == 14 + LARGE + room(sides, version)


@families
def test_an_error_for_another_than_it_quotes_is_not_believed(sides: Sides, version: int) -> None:
    reports(sides, version, NARROW, to=OTHER)
    assert not len(known(sides))


def _of_another_node(family: int, protocol: int, payload: bytes) -> bytes:
    return outer(OTHER[family], THERE[family], protocol, payload)


def _to_a_stranger(family: int, protocol: int, payload: bytes) -> bytes:
    return outer(NODE[family], STRANGER[family], protocol, payload)


def _to_a_workload_here(family: int, protocol: int, payload: bytes) -> bytes:
    return outer(NODE[family], HERE[family], protocol, payload)


def _not_wrapped(family: int, _protocol: int, payload: bytes) -> bytes:
    return outer(NODE[family], OTHER[family], GRE, payload)


def _for_another_port(family: int, _protocol: int, payload: bytes) -> bytes:
    return outer(NODE[family], OTHER[family], UDP, payload[:2] + b"\x00\x35" + payload[4:])


@families
@pytest.mark.parametrize(
    "forged", [_of_another_node, _to_a_stranger, _to_a_workload_here, _not_wrapped, _for_another_port]
)
def test_what_this_host_does_not_wrap_for_another_is_not_believed(
    sides: Sides, version: int, forged: Callable[[int, int, bytes], bytes]
) -> None:
    family = 4 if sides.overlay else version
    protocol = UDP if sides.how == GENEVE else IPV4_IN_IP if version == 4 else IPV6_IN_IP
    wrapped = sends(sides, version).packet[14 + (20 if family == 4 else 40) :]
    for to in (NODE, OTHER):
        reports(sides, version, NARROW, forged(family, protocol, wrapped), to)
    assert not len(known(sides))
