"""Direct return of flows that do not stay as they began: they come to another host, end, and begin again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from reconciler.bpf import syscalls
from reconciler.bpf.pins import program_path
from reconciler.datapath.loader import Datapath

from .brought import in_ipip
from .gate import ends
from .harness import REDIRECT, UNSPEC, Ran
from .packets import ACK, FIN, RST, SYN, TCP, UDP, tcp, udp
from .services import OUTSIDE
from .shop import at
from .sides import CLIENT, DIRECT, HERE, LOCAL, NODE, NODE_PORT, OTHER, PORT, THERE, WAYS, Sides, as_new, loaded_sides

NONE = 0  # enum direct_return
FRONT = {4: ("192.0.2.80", 80), 6: ("2001:db8:1::80", 80)}  # at every host
families = pytest.mark.parametrize("version", [4, 6])
by_ipip = pytest.mark.parametrize("loaded", ["ipip"], indirect=True)


@pytest.fixture(scope="module", params=WAYS, ids=str)
def loaded(request: pytest.FixtureRequest) -> Iterator[Sides]:
    with loaded_sides(request.param) as made:
        yield made


@pytest.fixture
def sides(loaded: Sides) -> Iterator[Sides]:
    with as_new(loaded) as made:
        for version, front in FRONT.items():
            made.services.serve(*front, [at(HERE[version], PORT)], scope=OUTSIDE)
        yield made


def comes(sides: Sides, version: int, flags: int) -> Ran:
    """Straight to the host that has the backend."""
    return sides.arrives(tcp(CLIENT[version], 5000, *FRONT[version], flags))


def is_brought(sides: Sides, version: int, flags: int) -> Ran:
    """Over the other host."""
    asked = tcp(CLIENT[version], 5000, *FRONT[version], flags)
    sent = tcp(CLIENT[version], 5000, HERE[version], PORT, flags)
    frame = sides.wrapped(asked, sent, FRONT[version], sides.outer(version, OTHER), bool(flags & SYN))
    return sides.arrives(frame)


def answers(sides: Sides, version: int, flags: int = ACK) -> Ran:
    return sides.leaves(tcp(HERE[version], PORT, CLIENT[version], 5000, flags))


@families
def test_a_flow_goes_on_though_it_comes_straight_to_its_backends_host(sides: Sides, version: int) -> None:
    is_brought(sides, version, SYN)
    answers(sides, version, SYN | ACK)
    action, got = comes(sides, version, ACK)
    assert (action, ends(got)) == (UNSPEC, (CLIENT[version], 5000, HERE[version], PORT))
    assert ends(answers(sides, version).packet)[:2] == FRONT[version]


@families
def test_a_flow_goes_on_though_it_comes_over_another_host(sides: Sides, version: int) -> None:
    for flags in (SYN, ACK):
        comes(sides, version, flags)
    assert is_brought(sides, version, SYN).action == REDIRECT  # again, as it was not answered in time
    assert is_brought(sides, version, ACK).action in (REDIRECT, UNSPEC)
    assert ends(answers(sides, version).packet)[:2] == FRONT[version]


def brings_on(sides: Sides, number: int) -> Ran:
    """The other node brings a segment of what its network device cut, each numbered one more (IPv4)."""
    return sides.arrives(in_ipip(OTHER[4], HERE[4], tcp(CLIENT[4], 5000, *FRONT[4], ACK), PORT + number))


@by_ipip
def test_segments_of_a_wrapped_packet_are_for_one_port(sides: Sides) -> None:
    is_brought(sides, 4, SYN)
    assert {ends(brings_on(sides, number).packet) for number in range(45)} == {(CLIENT[4], 5000, HERE[4], PORT)}
    assert len(rows(sides)) == 1


@by_ipip
def test_so_are_those_of_a_connection_that_came_straight_before(sides: Sides) -> None:
    for flags in (SYN, ACK):
        comes(sides, 4, flags)
    assert {ends(brings_on(sides, number).packet)[3] for number in range(45)} == {PORT}


@by_ipip
def test_a_connection_that_begins_again_may_have_another_port(sides: Sides) -> None:
    is_brought(sides, 4, SYN)
    is_brought(sides, 4, RST)
    again = in_ipip(OTHER[4], HERE[4], tcp(CLIENT[4], 5000, *FRONT[4], SYN), PORT + 1)
    assert ends(sides.arrives(again).packet)[3] == PORT + 1
    assert ends(brings_on(sides, 7).packet)[3] == PORT + 1


@families
def test_a_connection_that_begins_again_is_not_about_to_end(sides: Sides, version: int) -> None:
    """Of the one before, the client's FIN is all that the first host saw."""
    sides.open(version)
    for flags in (SYN, ACK, FIN | ACK, SYN, ACK):
        sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, flags))
    assert rows(sides)["closing"].tolist() == [0]


@families
def test_answers_keep_their_name_though_the_client_says_nothing_any_more(sides: Sides, version: int) -> None:
    is_brought(sides, version, SYN)
    answers(sides, version, SYN | ACK)
    is_brought(sides, version, ACK)
    [opened] = rows(sides)["expires"]
    is_brought(sides, version, FIN | ACK)
    answers(sides, version)
    [half] = rows(sides)["expires"]
    answers(sides, version, FIN | ACK)
    [over] = rows(sides)["expires"]
    assert over < opened <= half


@families
def test_who_gives_a_connection_up_may_ask_another_host_from_the_same_port(sides: Sides, version: int) -> None:
    for flags in (SYN, ACK, RST):
        is_brought(sides, version, flags)
    assert sides.brings(version, TCP).action == REDIRECT


@families
def test_a_workload_that_comes_here_gets_what_was_sent_to_another_host(sides: Sides, version: int) -> None:
    backend, asked = at(HERE[version], PORT), udp(CLIENT[version], 5000, NODE[version], NODE_PORT)
    sides.services.serve(NODE[version], NODE_PORT, [backend], protocol=UDP, scope=OUTSIDE)
    sides.services.know(backend, UDP, DIRECT)
    sides.arrives(asked)
    sides.services.know(backend, UDP, LOCAL)
    action, got = sides.arrives(asked)
    assert (action, ends(got)) == (UNSPEC, (CLIENT[version], 5000, HERE[version], PORT))
    assert ends(sides.leaves(udp(HERE[version], PORT, CLIENT[version], 5000)).packet)[:2] == (NODE[version], NODE_PORT)


@pytest.fixture
def turned_off(sides: Sides) -> Iterator[int]:
    """`from_netdev` after a commit by which nothing is answered directly any more."""
    root, options = sides.datapath.root, {**sides.options, "direct_return": NONE}
    datapath = Datapath(root, options, {})
    datapath.load()
    program = syscalls.get(program_path(root, "from_netdev", datapath.program_rows()["from_netdev"].digest))
    yield program
    os.close(program)


@families
def test_datagrams_are_answered_over_their_host_once_nothing_is_answered_directly(
    sides: Sides, turned_off: int, version: int
) -> None:
    sides.open(version, protocol=UDP)
    asked = udp(CLIENT[version], 5000, NODE[version], NODE_PORT)
    sides.arrives(asked)
    sides.services.know(at(THERE[version], PORT), UDP)
    left = sides.leaves(sides.datapath.try_on(turned_off, asked, sides.wire, sides.wire).packet).packet
    assert (ends(left)[0], ends(left)[2:]) == (NODE[version], (THERE[version], PORT))


@families
def test_a_connection_that_routes_carry_goes_on_when_nothing_is_answered_directly(
    sides: Sides, turned_off: int, version: int
) -> None:
    sides.open(version)
    for flags in (SYN, ACK):
        sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, flags))
    sides.services.know(at(THERE[version], PORT))
    seen = []
    for flags in (ACK, SYN):
        asked = tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, flags)
        left = sides.datapath.try_on(turned_off, asked, sides.wire, sides.wire).packet
        seen.append(ends(sides.leaves(left).packet)[0])
    assert seen == [NODE[version] if sides.overlay else CLIENT[version], NODE[version]]


def rows(sides: Sides) -> np.ndarray[Any, Any]:
    """Of flows, as they are known now."""
    return sides.datapath.maps.open("translations").read()[1]
