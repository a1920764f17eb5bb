"""The filter language: what it accepts, and what it says to what it does not."""

import contextlib
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import UsageError
from reconciler.observe.kernel_events import catalogue, describe
from reconciler.observe.kernel_expression import All, Any, Comparison, Filter, Not, parse
from reconciler.observe.kernel_values import Span, Value

EVENTS = catalogue({"NO_SOCKET": 3, "NETFILTER_DROP": 12})


def where(text: str) -> object:
    return parse(text, EVENTS).where


def values(text: str) -> tuple[Value, ...]:
    node = where(text)
    assert isinstance(node, Comparison)
    return node.values


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, EVENTS)
    return str(caught.value)


def test_an_event_alone_asks_for_all_of_its_kind() -> None:
    assert parse("drop", EVENTS) == Filter(EVENTS["drop"], None)


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    node = where("drop where not sport == 1 and sport == 2 or sport == 3")
    assert isinstance(node, Any)
    assert isinstance(node.nodes[0], All)
    assert isinstance(node.nodes[0].nodes[0], Not)


def test_parentheses_change_what_belongs_together() -> None:
    node = where("drop where sport == 1 and (sport == 2 or sport == 3)")
    assert isinstance(node, All)
    assert isinstance(node.nodes[1], Any)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drop where protocol == tcp", (Span(6, 6),)),
        ("drop where protocol == 132", (Span(132, 132),)),
        ("drop where reason == no_socket", (Span(3, 3),)),
        ("state where newstate == SYN_SENT", (Span(2, 2),)),
        ("drop where dport in 8000-8999", (Span(8000, 8999),)),
        ("drop where dport in (80, 443)", (Span(80, 80), Span(443, 443))),
        ("drop where saddr in 10.44.0.0/24", (IPv4Network("10.44.0.0/24"),)),
        ("drop where saddr == fd00::1", (IPv6Network("fd00::1/128"),)),
        ('drop where ifname == "we@b"', (b"we@b",)),
    ],
)
def test_a_value_is_read_as_its_field_says(text: str, expected: tuple[Value, ...]) -> None:
    assert values(text) == expected


def test_not_in_is_the_opposite_of_in() -> None:
    node = where("drop where dport not in (1, 2)")
    assert isinstance(node, Not)
    assert isinstance(node.node, Comparison)
    assert node.node.operator == "in"


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "the filter ends too early"),
        ("dorp", 1, "did you mean `drop`?"),
        ("drop sport == 1", 6, "expected: `where` or the end"),
        ("drop where", 11, "expected: a field: "),
        ("drop where sprot == 1", 12, "did you mean `sport`?"),
        ("drop where newstate == CLOSE", 12, "`newstate` is no field of drop"),
        ("drop where sport = 1", 18, "`=` means nothing here"),
        ("drop where sport 1", 18, "expected: == != < <= > >=, in, not in"),
        ("drop where sport == 70000", 21, "70000 is above 65535"),
        ("drop where sport == -1", 21, "`` is no number"),
        ("drop where sport == 2-1", 21, "the range `2-1` is empty"),
        ("drop where sport == 1-2", 21, "write: sport in 1-2"),
        ("drop where saddr == 10.0.0.0/8", 21, "write: saddr in 10.0.0.0/8"),
        ("drop where saddr in 10.0.0.1/8", 21, "10.0.0.0/8?"),
        ("drop where saddr in example.com", 21, "`example.com` is no address"),
        ("drop where saddr < 10.0.0.1", 18, "saddr has no order"),
        ("drop where protocol == tpc", 24, "did you mean TCP?"),
        ("drop where ifname == a-name-far-too-long", 22, "longer than 15 bytes"),
        ("drop where (sport == 1", 23, "expected: `)`"),
        ("drop where sport == 1 sport == 2", 23, "expected: `and`, `or` or the end"),
        ("drop where sport == 1; exit", 22, "`;` means nothing here"),
    ],
)
def test_an_error_names_the_column_and_what_is_allowed(text: str, column: int, says: str) -> None:
    message = refused(text)
    assert f"column {column}:" in message
    assert says in message


def test_an_error_points_at_the_column() -> None:
    lines = refused("drop where sprot == 1").splitlines()
    assert lines[2].index("^") == lines[1].index("sprot")


def test_a_filter_that_would_drown_the_verifier_is_refused() -> None:
    ports = ",".join(map(str, range(200)))
    assert "too many values" in refused(f"drop where sport in ({ports})")
    assert "nested too deeply" in refused("drop where " + "not " * 40 + "sport == 1")
    assert "4096 are allowed" in refused("drop where sport == 1" + " " * 4096)


def test_without_reasons_of_the_kernel_there_is_no_such_field() -> None:
    with pytest.raises(UsageError, match="`reason` is no field of drop"):
        parse("drop where reason == NO_SOCKET", catalogue({}))


def test_the_help_names_every_field_of_every_event() -> None:
    text = describe(EVENTS)
    assert all(field in text for event in EVENTS.values() for field in event.fields)


@given(st.text(alphabet=st.sampled_from('drop where sport==1(),"and not in10.0/8\n\t;é'), max_size=60))
def test_whatever_is_written_becomes_a_filter_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text, EVENTS)
