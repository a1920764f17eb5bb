"""Port prefixes and their precedence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.compile.ports import ANY_PORT, PortPrefix, covering, prefixes, resolve
from reconciler.compile.precedence import Claim, PortRow, combine
from reconciler.model.cluster import NamedPort
from reconciler.model.datapath import Verdict
from reconciler.model.policy import PortMatch

TCP, UDP, ICMP = 6, 17, 1

port_numbers = st.integers(0, 65535)
ranges = st.tuples(port_numbers, port_numbers).map(sorted).filter(lambda ends: ends != [0, 0])
# Ports that share many prefixes, so that claims cover each other.
near = st.integers(0, 15)


def contains(prefix: PortPrefix, protocol: int, port: int) -> bool:
    if prefix.protocol not in (0, protocol):
        return False
    return (prefix.port ^ port) >> (16 - prefix.bits) == 0


@given(ranges, port_numbers)
def test_prefixes_hold_exactly_the_ports_of_a_range(ends: list[int], port: int) -> None:
    first, last = ends
    found = prefixes(PortMatch(TCP, first, last))
    assert sum(contains(prefix, TCP, port) for prefix in found) == (first <= port <= last)
    assert sum(1 << (16 - prefix.bits) for prefix in found) == last - first + 1


@given(ranges)
def test_a_range_takes_at_most_thirty_prefixes(ends: list[int]) -> None:
    assert len(prefixes(PortMatch(TCP, *ends))) <= 30


def test_port_zero_is_every_port_of_the_protocol() -> None:
    assert prefixes(PortMatch(TCP)) == (PortPrefix(TCP, 0, 0),)


def test_icmp_type_zero_is_a_type() -> None:
    assert prefixes(PortMatch(ICMP)) == (PortPrefix(ICMP, 0, 16),)


def test_all_icmp_types_are_one_prefix() -> None:
    assert prefixes(PortMatch(ICMP, 0, 255)) == (PortPrefix(ICMP, 0, 8),)


@given(st.builds(PortPrefix, st.sampled_from((TCP, UDP)), near, st.just(16)))
def test_covering_prefixes_contain_what_they_cover_and_end_with_any_port(prefix: PortPrefix) -> None:
    found = list(covering(prefix))
    assert [wide.bits for wide in found] == [*range(15, -1, -1), 0]
    assert all(contains(wide, prefix.protocol, prefix.port) for wide in found)
    assert all(wide.port & (0xFFFF >> wide.bits) == 0 for wide in found)
    assert found[-1] == ANY_PORT


def test_a_named_port_needs_its_protocol_too() -> None:
    ports = [NamedPort("dns", 53, UDP), NamedPort("dns", 54, TCP), NamedPort("http", 80, TCP)]
    assert resolve(PortMatch(UDP, name="dns"), ports) == (PortPrefix(UDP, 53, 16),)
    assert resolve(PortMatch(TCP, name="nothing"), ports) == ()


matches = st.one_of(
    st.tuples(near, near).map(sorted).map(lambda ends: PortMatch(TCP, *ends)), st.sampled_from([PortMatch(UDP, 3, 3)])
)
port_sets = st.one_of(st.just((ANY_PORT,)), matches.map(prefixes))
says = st.sampled_from([*((verdict, False) for verdict in Verdict), (Verdict.ALLOW, True)])
claims = st.lists(
    st.builds(lambda ports, says, cookie: Claim(ports, says[0], cookie, says[1]), port_sets, says, st.integers(1, 9)),
    min_size=1,
    max_size=5,
)


def longest(rows: list[PortRow], protocol: int, port: int) -> tuple[Verdict, bool] | None:
    found = [row for row in rows if contains(row.prefix, protocol, port)]
    if not found:
        return None
    return max(found, key=lambda row: (row.prefix.protocol != 0, row.prefix.bits)).strength


@given(claims, st.sampled_from((TCP, UDP, 132)), near)
def test_the_longest_match_is_the_strongest_claim(found: list[Claim], protocol: int, port: int) -> None:
    about = [
        (one.verdict, one.redirect) for one in found if any(contains(prefix, protocol, port) for prefix in one.ports)
    ]
    assert longest(combine(found), protocol, port) == (max(about) if about else None)


@given(claims)
def test_no_row_repeats_the_row_that_covers_it(found: list[Claim]) -> None:
    rows = {row.prefix: row for row in combine(found)}
    for prefix, row in rows.items():
        above = next((rows[wide] for wide in covering(prefix) if wide in rows), None)
        assert above is None or above.strength != row.strength


def test_a_deny_of_some_ports_keeps_the_rest() -> None:
    allow, deny = Claim((ANY_PORT,), Verdict.ALLOW, 1), Claim((PortPrefix(TCP, 80, 16),), Verdict.DENY, 2)
    assert combine([allow, deny]) == [
        PortRow(ANY_PORT, Verdict.ALLOW, 1),
        PortRow(PortPrefix(TCP, 80, 16), Verdict.DENY, 2),
    ]


def test_a_broad_deny_leaves_no_narrow_allow() -> None:
    allow, deny = Claim((PortPrefix(TCP, 80, 16),), Verdict.ALLOW, 1), Claim((ANY_PORT,), Verdict.DENY, 2)
    assert combine([allow, deny]) == [PortRow(ANY_PORT, Verdict.DENY, 2)]


def test_of_equal_claims_the_first_gives_the_cookie() -> None:
    assert combine([Claim((ANY_PORT,), Verdict.ALLOW, 7), Claim((ANY_PORT,), Verdict.ALLOW, 3)])[0].cookie == 7
