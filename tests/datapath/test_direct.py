"""Direct return: how a client's packet is told what the client knows, and how its backend's answer leaves with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.kernel.devices import DevicesTable
from reconciler.model.outside import DeviceFlag, DeviceRow
from reconciler.observe.flow import Reason

from .brought import IPIP, OPTION, in_geneve, in_ipip
from .gate import ends, error, is_whole
from .harness import REDIRECT, SHOT, UNSPEC
from .mutations import Way, errors, frames, survive
from .packets import ACK, FIN, SCTP, SYN, TCP, UDP, tcp, udp, uncut
from .services import OUTSIDE
from .shop import at, packet
from .sides import (
    CLIENT,
    HERE,
    KNOWN,
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

MTU = 1400
families = pytest.mark.parametrize("version", [4, 6])
protocols = pytest.mark.parametrize("protocol", [TCP, UDP])


@pytest.fixture(scope="module", params=WAYS, ids=str)
def loaded(request: pytest.FixtureRequest) -> Iterator[Sides]:
    with loaded_sides(request.param) as made:
        yield made


@pytest.fixture
def sides(loaded: Sides) -> Iterator[Sides]:
    with as_new(loaded) as made:
        yield made


def _same(found: bytes, wanted: bytes) -> bool:
    """But for what a hash decides: the source port of an outer UDP header."""
    place = 34 if found[12:14] == b"\x08\x00" else 54
    if found[14 + (9 if place == 34 else 6)] == UDP and found[place + 2 : place + 4] == b"\x17\xc1":
        found = found[:place] + wanted[place : place + 2] + found[place + 2 :]
    return found[12:] == wanted[12:]


@families
@protocols
def test_a_packet_goes_on_with_its_own_source_and_what_the_client_knows(
    sides: Sides, version: int, protocol: int
) -> None:
    sides.open(version, protocol=protocol)
    for flags in (SYN, ACK):
        asked = packet(protocol, CLIENT[version], 5000, NODE[version], NODE_PORT, flags)
        sent = packet(protocol, CLIENT[version], 5000, THERE[version], PORT, flags)
        opens = protocol == UDP or flags == SYN
        wanted = sides.wrapped(asked, sent, (NODE[version], NODE_PORT), sides.outer(version), opens)
        action, left = sides.arrives(asked)
        assert action == (UNSPEC if sides.how == OPTION else REDIRECT)
        assert _same(left, wanted)
        assert sides.how != OPTION or sides.leaves(left) == (UNSPEC, left)
    assert len(sides.datapath.maps.open("translations").read()[0]) == 1


@families
@protocols
def test_the_backend_gets_what_its_client_sent_and_answers_as_the_service(
    sides: Sides, version: int, protocol: int
) -> None:
    action, got = sides.brings(version, protocol)
    assert (action, ends(got)) == (REDIRECT, (CLIENT[version], 5000, HERE[version], PORT))
    assert (is_whole(got), got[:6].hex(":")) == (True, sides.datapath.devices[0].mac)
    assert got[22 if version == 4 else 21] == 63
    action, answer = sides.leaves(packet(protocol, HERE[version], PORT, CLIENT[version], 5000, SYN | ACK))
    assert (action, ends(answer)) == (UNSPEC, (OTHER[version], NODE_PORT, CLIENT[version], 5000))
    assert is_whole(answer)


@families
@protocols
def test_the_backend_may_believe_what_the_device_has_added_up(sides: Sides, version: int, protocol: int) -> None:
    sides.datapath.summed = True
    try:
        assert sides.brings(version, protocol).action == REDIRECT
    finally:
        sides.datapath.summed = False


@families
def test_an_error_about_an_answer_reaches_the_backend(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    sides.arrives(udp(CLIENT[version], 5000, NODE[version], NODE_PORT))
    answer = udp(NODE[version], NODE_PORT, CLIENT[version], 5000)
    asked = error(version, STRANGER[version], NODE[version], answer)
    action, left = sides.arrives(asked)
    assert action == (UNSPEC if sides.how == OPTION else REDIRECT)
    here = error(version, STRANGER[version], OTHER[version], udp(OTHER[version], NODE_PORT, CLIENT[version], 5000))
    sent = error(version, STRANGER[version], HERE[version], udp(HERE[version], PORT, CLIENT[version], 5000))
    if sides.how == OPTION:  # it is for the backend as it is
        assert ends(left)[2] == THERE[version]
        return
    sides.brings(version, UDP)
    front = OTHER[version], NODE_PORT
    source, target = sides.outer(version, OTHER), NODE[4] if sides.overlay else HERE[version]
    frame = in_ipip(source, target, here, PORT) if sides.how == IPIP else in_geneve(source, target, sent, front)
    action, got = sides.arrives(frame)
    assert (action, ends(got)[2], is_whole(got)) == (REDIRECT, HERE[version], True)
    assert ends(got[:14] + got[42 if version == 4 else 62 :]) == (HERE[version], PORT, CLIENT[version], 5000)


@families
def test_an_error_for_another_than_it_quotes_is_not_sent_on(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    sides.arrives(udp(CLIENT[version], 5000, NODE[version], NODE_PORT))
    frame = error(version, STRANGER[version], OTHER[version], udp(NODE[version], NODE_PORT, CLIENT[version], 5000))
    assert sides.arrives(frame) == (UNSPEC, frame)


@pytest.mark.parametrize("loaded", ["ipip"], indirect=True)
@families
def test_such_an_error_is_dropped_where_it_is_brought(sides: Sides, version: int) -> None:
    told = error(version, STRANGER[version], NODE[version], udp(OTHER[version], NODE_PORT, CLIENT[version], 5000))
    assert sides.arrives(in_ipip(OTHER[version], HERE[version], told, PORT)).action == SHOT
    assert sides.datapath.events()["reason"].tolist() == [Reason.MALFORMED]


@families
def test_an_error_of_the_backend_speaks_of_the_service(sides: Sides, version: int) -> None:
    sides.brings(version, UDP)
    told = sides.leaves(error(version, HERE[version], CLIENT[version], udp(CLIENT[version], 5000, HERE[version], PORT)))
    assert told.action == UNSPEC
    quoted = told.packet[:14] + told.packet[42 if version == 4 else 62 :]
    assert ends(quoted) == (CLIENT[version], 5000, OTHER[version], NODE_PORT)
    assert (ends(told.packet)[0], is_whole(told.packet)) == (OTHER[version], True)


@pytest.mark.parametrize("loaded", ["ipip", "geneve"], indirect=True)
@families
def test_what_is_wrapped_comes_from_where_other_nodes_know_the_host(sides: Sides, version: int) -> None:
    sides.open(version)
    DevicesTable(sides.datapath.maps).write({"lo": KNOWN}, ())
    left = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT)).packet
    assert ends(left)[::2] == (str(KNOWN.address4 if version == 4 else KNOWN.address6), THERE[version])


@families
def test_nothing_is_wrapped_in_no_address(sides: Sides, version: int) -> None:
    sides.open(version)
    DevicesTable(sides.datapath.maps).write({"wire": DeviceRow(DeviceFlag.SERVICES)}, ())
    action = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT)).action
    if sides.how == OPTION:
        assert action == UNSPEC
    elif sides.overlay:  # its tunnel has one
        assert action == REDIRECT
    else:
        assert (action, sides.datapath.events()["reason"].tolist()) == (SHOT, [Reason.UNTRANSLATABLE])


@families
def test_who_is_no_node_is_not_believed(sides: Sides, version: int) -> None:
    before = sides.dropped(Reason.TUNNEL_NODE)
    action, _ = sides.brings(version, TCP, source=sides.outer(version, STRANGER))
    if sides.how == OPTION:  # its packet has no outer source; it can only have answers of its own flow renamed
        assert action == REDIRECT
        return
    assert action == SHOT
    assert sides.dropped(Reason.TUNNEL_NODE) == before + 1
    assert not len(sides.datapath.maps.open("translations").read()[0])


@families
def test_nobody_has_answers_sent_in_the_name_of_strangers(sides: Sides, version: int) -> None:
    front = STRANGER[version], 443
    asked = tcp(CLIENT[version], 5000, *front)
    sent = tcp(CLIENT[version], 5000, HERE[version], PORT)
    assert sides.arrives(sides.wrapped(asked, sent, front, sides.outer(version, OTHER), True)).action == SHOT
    assert sides.datapath.events()["reason"].tolist() == [Reason.NO_FRONTEND]


@families
def test_a_backend_that_is_not_here_gets_nothing(sides: Sides, version: int) -> None:
    front = OTHER[version], NODE_PORT
    gone = {4: "10.1.0.200", 6: "fd00:1::200"}[version]
    asked, sent = tcp(CLIENT[version], 5000, *front), tcp(CLIENT[version], 5000, gone, PORT)
    frame = sides.wrapped(asked, sent, front, sides.outer(version, OTHER), True)
    action, left = sides.arrives(frame)
    assert (action, left) == (UNSPEC, frame) or action == SHOT


@families
def test_one_client_port_never_has_two_names_for_its_peer(sides: Sides, version: int) -> None:
    sides.brings(version, TCP)
    sides.brings(version, TCP, ACK)
    assert sides.brings(version, TCP, port=NODE_PORT + 1).action == SHOT
    assert sides.datapath.events()["reason"].tolist() == [Reason.NO_PORT]
    sides.brings(version, TCP, FIN | ACK)
    sides.leaves(tcp(HERE[version], PORT, CLIENT[version], 5000, FIN | ACK))
    assert sides.brings(version, TCP, port=NODE_PORT + 1).action == REDIRECT


@families
def test_a_flow_goes_on_where_it_was_though_its_service_has_others(sides: Sides, version: int) -> None:
    sides.open(version)
    first = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT))[1]
    sides.services.serve(NODE[version], NODE_PORT, [at(HERE[version], PORT)], scope=OUTSIDE)
    again = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, ACK))[1]
    place = slice(30, 34) if version == 4 else slice(38, 54)
    assert again[place] == first[place]
    sides.services.kill(at(THERE[version], PORT))
    action, told = sides.arrives(tcp(CLIENT[version], 5000, NODE[version], NODE_PORT, ACK))
    assert (action, ends(told)) == (REDIRECT, (NODE[version], NODE_PORT, CLIENT[version], 5000))  # a reset


@families
def test_what_does_not_fit_the_way_is_told_its_client(sides: Sides, version: int) -> None:
    sides.open(version, protocol=UDP)
    run_ip("link", "set", "wire", "mtu", str(MTU))
    try:
        full = bytes(MTU - (28 if version == 4 else 48) - 4)
        asked = uncut(udp(CLIENT[version], 5000, NODE[version], NODE_PORT, full))
        action, told = sides.arrives(asked)
        assert (action, is_whole(told)) == (REDIRECT, True)
        assert (told[:6], told[6:12]) == (asked[6:12], asked[:6])
        assert ends(told)[::2] == (NODE[version], CLIENT[version])
        assert MTU - 80 <= int.from_bytes(told[40:42] if version == 4 else told[58:62]) < MTU - 4
        if version == 4:
            asked = udp(CLIENT[4], 5000, NODE[4], NODE_PORT, full)
            assert sides.arrives(asked).action == (UNSPEC if sides.how == OPTION else SHOT)
    finally:
        run_ip("link", "set", "wire", "mtu", "1500")


def test_no_mutation_of_a_packet_does_more_than_go_on_or_drop(sides: Sides) -> None:
    tries: list[tuple[bytes, Way]] = []
    for version in (4, 6):
        front = OTHER[version], NODE_PORT
        for protocol in (TCP, UDP, SCTP):
            sides.open(version, protocol=protocol)
        asked = list(frames(CLIENT[version], 5000, NODE[version], NODE_PORT))
        brought = frames(CLIENT[version], 5000, *front), frames(CLIENT[version], 5000, HERE[version], PORT)
        tries += [(frame, sides.arrives) for frame in asked]
        tries += [(frame, sides.arrives) for frame in errors(STRANGER[version], NODE[version], iter(asked))]
        tries += [
            (sides.wrapped(one, sent, front, sides.outer(version, OTHER), True), sides.arrives)
            for one, sent in zip(*brought, strict=True)
        ]
        tries += [(frame, sides.leaves) for frame in frames(HERE[version], PORT, CLIENT[version], 5000)]
        known, far = (NODE[version], NODE_PORT), frames(CLIENT[version], 5000, THERE[version], PORT)
        left = (sides.wrapped(*pair, known, sides.outer(version), True) for pair in zip(asked, far, strict=True))
        routers = errors(sides.outer(version, STRANGER), sides.outer(version), left)
        tries += [(frame, sides.arrives) for frame in routers]
    survive(sides.datapath, tries, {UNSPEC, SHOT, REDIRECT})
