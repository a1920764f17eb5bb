"""A flood of new flows at XDP: they go to their backends, and push out nobody's row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .packets import ACK, SYN, TCP
from .services import MAGLEV, OUTSIDE, RANDOM
from .shop import at, packet
from .sides import CLIENT, DIRECT, NODE, NODE_PORT, OTHER, PORT, THERE, Sides, as_new, loaded_sides, run_ip
from .test_direct_early import TX, early

FLOWS, REMEMBERED = 64, 4  # in a tick of a second
families = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def loaded() -> Iterator[Sides]:
    with loaded_sides("ipip", remembered_per_tick=REMEMBERED) as made:
        yield made


@pytest.fixture
def sides(loaded: Sides) -> Iterator[Sides]:
    with as_new(loaded) as made:
        for version in (4, 6):
            run_ip("route", "replace", CLIENT[version], "dev", "wire")
        yield made


def wrapped(sides: Sides, version: int, port: int, flags: int) -> bytes:
    frame = packet(TCP, CLIENT[version], port, NODE[version], NODE_PORT, flags)
    action, left = early(sides, frame)
    assert action == TX
    return left


def backend(left: bytes, version: int) -> bytes:
    return left[30:34] if version == 4 else left[38:54]


def serve(sides: Sides, version: int, algorithm: int) -> None:
    backends = [f"{THERE[version][:-1]}{number}" for number in range(1, 9)]
    for one in backends:
        run_ip("route", "replace", one, "via", OTHER[version], "dev", "wire")
    there = [at(one, PORT) for one in backends]
    sides.services.serve(NODE[version], NODE_PORT, there, scope=OUTSIDE, algorithm=algorithm)
    for one in there:
        sides.services.know(one, TCP, DIRECT)


def rows(sides: Sides) -> int:
    return len(sides.datapath.maps.open("translations").read()[0])


@families
def test_flows_of_a_flood_keep_their_backends_and_few_have_rows(sides: Sides, version: int) -> None:
    serve(sides, version, MAGLEV)
    chosen = [backend(wrapped(sides, version, 6000 + flow, SYN), version) for flow in range(FLOWS)]
    assert rows(sides) <= FLOWS // 2
    assert [backend(wrapped(sides, version, 6000 + flow, ACK), version) for flow in range(FLOWS)] == chosen


@families
def test_flows_whose_backends_nothing_but_their_rows_tell_are_all_remembered(sides: Sides, version: int) -> None:
    serve(sides, version, RANDOM)
    for flow in range(FLOWS):
        wrapped(sides, version, 6000 + flow, SYN)
    assert rows(sides) == FLOWS
