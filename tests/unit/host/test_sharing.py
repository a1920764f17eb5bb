"""CIDRs of clusters that are joined must be apart."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.host.hearing import IpNetwork
from reconciler.host.sharing import overlapping

NETWORKS = st.builds(
    lambda value, length: ip_network((value >> (32 - length) << (32 - length), length)),
    st.integers(0, 255).map(lambda value: 10 << 24 | value << 8),
    st.integers(14, 26),
)


@given(st.lists(NETWORKS, max_size=6), st.lists(NETWORKS, max_size=6))
def test_an_overlap_is_found_if_there_is_one(ours: list[IpNetwork], theirs: list[IpNetwork]) -> None:
    there = any(one.overlaps(other) for one in ours for other in theirs)
    assert (overlapping(theirs, ours) is not None) == there


@pytest.mark.parametrize(("one", "other"), [("10.0.0.0/24", "fd00::/112"), ("10.0.0.0/25", "10.0.0.128/25")])
def test_networks_that_are_apart_do_not_overlap(one: str, other: str) -> None:
    assert overlapping([ip_network(one)], [ip_network(other)]) is None
