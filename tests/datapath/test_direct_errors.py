"""ICMP errors about answers, at a host that does not know the flow: the service's table says which backend's it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.observe.flow import Reason

from .brought import OPTION
from .gate import ends, error, is_whole
from .harness import REDIRECT, SHOT, UNSPEC, Ran
from .packets import SCTP, TCP, UDP
from .services import OUTSIDE, RANDOM
from .shop import at, packet
from .sides import (
    CLIENT,
    DIRECT,
    HERE,
    LOCAL,
    NODE,
    NODE_PORT,
    OTHER,
    PORT,
    STRANGER,
    THERE,
    WAYS,
    Sides,
    as_new,
    loaded_sides,
    run_ip,
)

families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])


@pytest.fixture(scope="module", params=WAYS, ids=str)
def loaded(request: pytest.FixtureRequest) -> Iterator[Sides]:
    with loaded_sides(request.param) as made:
        yield made


@pytest.fixture
def sides(loaded: Sides) -> Iterator[Sides]:
    with as_new(loaded) as made:
        yield made


def told(version: int, protocol: int = UDP, *, client: str = "", port: int = 5000) -> bytes:
    """A router's error about an answer of the service."""
    answer = packet(protocol, NODE[version], NODE_PORT, client or CLIENT[version], port)
    return error(version, STRANGER[version], NODE[version], answer)


def asks(sides: Sides, version: int, protocol: int, port: int = 5000) -> Ran:
    return sides.arrives(packet(protocol, CLIENT[version], port, NODE[version], NODE_PORT))


def knows(sides: Sides) -> int:
    return len(sides.datapath.maps.open("translations").read()[0])


@families
@protocols
def test_it_goes_on_to_the_backend_as_if_the_flow_were_known(sides: Sides, version: int, protocol: int) -> None:
    sides.open(version, protocol=protocol)
    action, left = sides.arrives(told(version, protocol))
    assert (action, knows(sides)) == (UNSPEC if sides.how == OPTION else REDIRECT, 0)
    asks(sides, version, protocol)
    assert knows(sides) == 1
    assert sides.arrives(told(version, protocol)) == (action, left)


@families
def test_of_many_backends_the_one_that_the_flow_has_gets_it(sides: Sides, version: int) -> None:
    others = [f"{THERE[version][:-1]}{number}" for number in range(1, 9)]
    for backend in others:
        run_ip("route", "replace", backend, "via", OTHER[version], "dev", "wire")
    sides.services.serve(NODE[version], NODE_PORT, [at(one, PORT) for one in others], protocol=UDP, scope=OUTSIDE)
    for backend in others:
        sides.services.know(at(backend, PORT), UDP, DIRECT)
    before = [sides.arrives(told(version, port=port)).packet for port in range(6000, 6032)]
    for port in range(6000, 6032):
        asks(sides, version, UDP, port)
    assert before == [sides.arrives(told(version, port=port)).packet for port in range(6000, 6032)]


@families
@pytest.mark.parametrize("flags", [LOCAL, 0], ids=["selected", "listed"])
def test_a_backend_of_this_host_gets_it_too(sides: Sides, version: int, flags: int) -> None:
    sides.services.serve(NODE[version], NODE_PORT, [at(HERE[version], PORT)], protocol=UDP, scope=OUTSIDE)
    sides.services.know(at(HERE[version], PORT), UDP, flags)
    action, got = sides.arrives(told(version))
    assert (action, ends(got)[2], is_whole(got), knows(sides)) == (UNSPEC, HERE[version], True, 0)
    quoted = got[:14] + got[42 if version == 4 else 62 :]
    assert ends(quoted) == (HERE[version], PORT, CLIENT[version], 5000)


@families
def test_it_is_as_it_was_where_the_table_does_not_decide_alone(sides: Sides, version: int) -> None:
    backend, frame = at(THERE[version], PORT), told(version)
    sides.services.serve(NODE[version], NODE_PORT, [backend], protocol=UDP, scope=OUTSIDE, algorithm=RANDOM)
    sides.services.know(backend, UDP, DIRECT)
    assert sides.arrives(frame) == (UNSPEC, frame)
    sides.services.serve(NODE[version], NODE_PORT, [backend], protocol=UDP, scope=OUTSIDE, affinity_s=60)
    sides.services.know(backend, UDP, DIRECT)
    assert sides.arrives(frame) == (UNSPEC, frame)


@families
def test_it_is_as_it_was_where_each_host_has_backends_of_its_own(sides: Sides, version: int) -> None:
    backend, frame = at(HERE[version], PORT), told(version)
    sides.services.serve(NODE[version], NODE_PORT, [backend], protocol=UDP, scope=OUTSIDE, only_local=True)
    sides.services.know(backend, UDP, LOCAL)
    assert sides.arrives(frame) == (UNSPEC, frame)


@families
def test_it_is_as_it_was_where_the_backend_answers_the_first_host(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    of_a_node = told(version, client=OTHER[version])
    assert sides.arrives(of_a_node) == (UNSPEC, of_a_node)
    sides.services.know(at(THERE[version], PORT), UDP)
    frame = told(version)
    assert sides.arrives(frame) == (UNSPEC, frame)


@families
def test_it_is_as_it_was_if_it_is_for_another_than_it_quotes(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    answer = packet(UDP, NODE[version], NODE_PORT, CLIENT[version], 5000)
    frame = error(version, STRANGER[version], OTHER[version], answer)
    assert sides.arrives(frame) == (UNSPEC, frame)


@families
def test_no_client_that_the_service_is_not_for_has_one(sides: Sides, version: int) -> None:
    sources = {4: "198.51.100.0/24", 6: "2001:db8:5::/48"}[version]
    backend = at(THERE[version], PORT)
    sides.services.serve(NODE[version], NODE_PORT, [backend], protocol=UDP, scope=OUTSIDE, sources=[sources])
    sides.services.know(backend, UDP, DIRECT)
    assert sides.arrives(told(version)).action == SHOT
    assert sides.datapath.events()["reason"].tolist() == [Reason.NOT_ADMITTED]
