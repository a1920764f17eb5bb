"""What a client's packet says of its class and of congestion, where it is wrapped for its backend and where it is taken
out (RFC 6040).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.observe.flow import Reason

from .gate import is_whole
from .harness import REDIRECT, SHOT, Ran
from .packets import CE, ECT0, ECT1, NOT_ECT, UDP, checksum, class_of, in_class, udp
from .sides import CLIENT, HERE, NODE, NODE_PORT, OTHER, PORT, WAYS, Sides, as_new, loaded_sides

DSCP = 46 << 2
families = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module", params=sorted(WAYS.keys() - {"option"}), ids=str)
def loaded(request: pytest.FixtureRequest) -> Iterator[Sides]:
    with loaded_sides(request.param) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["", "added up by the device"])
def sides(loaded: Sides, request: pytest.FixtureRequest) -> Iterator[Sides]:
    with as_new(loaded) as made:
        made.datapath.summed = request.param
        yield made
        made.datapath.summed = False


def brings(sides: Sides, version: int, said: int, around: int) -> Ran:
    """The other node brings a packet of class `said`, and routers have made the class of what wraps it `around`."""
    front = OTHER[version], NODE_PORT
    asked = in_class(udp(CLIENT[version], 5000, *front), said)
    sent = in_class(udp(CLIENT[version], 5000, HERE[version], PORT), said)
    return sides.arrives(in_class(sides.wrapped(asked, sent, front, sides.outer(version, OTHER), True), around))


@families
@pytest.mark.parametrize("value", [0, CE, DSCP | ECT0, DSCP | ECT1, 0xFF])
def test_a_packet_is_wrapped_in_its_own_class(loaded: Sides, version: int, value: int) -> None:
    with as_new(loaded) as sides:
        sides.open(version, protocol=UDP)
        asked = in_class(udp(CLIENT[version], 5000, NODE[version], NODE_PORT), value)
        action, left = sides.arrives(asked)
    inner = asked[:14] + left[14 - len(asked) :]
    assert (action, class_of(left), class_of(inner), is_whole(inner)) == (REDIRECT, value, value, True)
    assert left[12:14] != b"\x08\x00" or checksum(left[14:34]) == 0


@families
@pytest.mark.parametrize("ecn", [ECT0, ECT1, CE])
def test_what_routers_say_of_congestion_is_told_the_backend(sides: Sides, version: int, ecn: int) -> None:
    action, got = brings(sides, version, DSCP | ecn, CE)
    assert (action, class_of(got), is_whole(got)) == (REDIRECT, DSCP | CE, True)


@families
def test_a_client_that_knows_no_congestion_loses_the_packet(sides: Sides, version: int) -> None:
    before = sides.dropped(Reason.MALFORMED)
    assert brings(sides, version, DSCP | NOT_ECT, CE).action == SHOT
    assert sides.dropped(Reason.MALFORMED) == before + 1


@families
@pytest.mark.parametrize("around", [NOT_ECT, ECT0, ECT1])
def test_nothing_else_around_a_packet_changes_its_class(sides: Sides, version: int, around: int) -> None:
    for ecn in (NOT_ECT, ECT0, ECT1, CE):
        action, got = brings(sides, version, DSCP | ecn, around)
        assert (action, class_of(got), is_whole(got)) == (REDIRECT, DSCP | ecn, True)
