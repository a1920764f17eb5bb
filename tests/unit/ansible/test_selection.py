"""Rows that a task names, in both shapes of tables."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reconciler.ansible.selection import Marks, Selection, pairs, restricted
from reconciler.engine.diff import diff_rows
from reconciler.engine.render import fields_of
from reconciler.engine.rows import Columns, DictRows
from reconciler.model.datapath import POLICY_KEY, POLICY_VALUE, AttachmentKey, Hook
from reconciler.model.network import HOST_NETNS, Link, Route, RouteKey, VethPeer

WEB = Marks(frozenset({"/run/netns/web"}), frozenset({"lxc1"}), frozenset({"10.44.0.2"}), frozenset({257}))

Content = Mapping[tuple[int, int], int]


def selection(*config: Mapping[str, Any]) -> Selection:
    return Selection(config, [], fields_of)


def route(destination: str, ifname: str, netns: str = HOST_NETNS) -> tuple[RouteKey, Route]:
    return RouteKey(netns, IPv4Network(destination), 254, 0), Route(ifname)


def policy(content: Content) -> Columns:
    """(subject, peer) -> verdict."""
    keys, values = np.zeros(len(content), POLICY_KEY), np.zeros(len(content), POLICY_VALUE)
    for index, ((subject, peer), verdict) in enumerate(content.items()):
        keys[index]["subject"], keys[index]["peer"], values[index]["verdict"] = subject, peer, verdict
    return Columns(keys, values)


def test_a_key_fits_when_the_fields_that_are_given_are_equal() -> None:
    key, row = route("192.0.2.0/24", "eth0")
    assert ("routes", key, row) in selection({"key": {"destination": "192.0.2.0/24"}})
    assert ("routes", key, row) in selection(
        {"table": "routes", "key": {"destination": "192.0.2.0/24", "table": "254"}}
    )
    assert ("routes", key, row) not in selection({"table": "rules", "key": {"destination": "192.0.2.0/24"}})
    assert ("routes", key, row) not in selection({"key": {"destination": "192.0.2.0/25"}})
    assert ("routes", key, row) not in selection({"key": {"nonsense": "192.0.2.0/24"}})


def test_a_key_without_fields_is_compared_as_it_is() -> None:
    link = Link("02:00:00:00:00:01", 1500, VethPeer("/run/netns/web", "eth0", "02:00:00:00:00:02"))
    assert ("links", "lxc1", link) in selection({"key": "lxc1"})
    assert ("links", "lxc2", link) not in selection({"key": "lxc1"})


def test_a_workload_owns_its_devices_what_is_in_its_namespace_and_its_rows_of_policy() -> None:
    assert WEB.of("lxc1", Link("m", 1500, VethPeer("/run/netns/web", "eth0", "m")))
    assert WEB.of(AttachmentKey("lxc1", Hook.INGRESS), None)
    assert WEB.of(*route("10.44.0.2/32", "lxc1"))
    assert WEB.of(*route("0.0.0.0/0", "eth0", netns="/run/netns/web"))
    assert WEB.of(policy({(257, 2): 1}).keys[0], None)


def test_a_workload_does_not_own_what_is_another_s() -> None:
    assert not WEB.of("lxc2", Link("m", 1500, VethPeer("/run/netns/db", "eth0", "m")))
    assert not WEB.of(*route("10.44.0.3/32", "lxc2"))
    assert not WEB.of(*route("0.0.0.0/0", "lxc1", netns="/run/netns/db"))
    assert not WEB.of(policy({(258, 257): 1}).keys[0], None)


def test_items_that_fit_no_row_are_named() -> None:
    rows = DictRows(dict([route("192.0.2.0/24", "eth0")]))
    wrong = {"key": {"destination": "198.51.100.0/24"}}
    assert selection({"key": {"destination": "192.0.2.0/24"}}, wrong).missed({"routes": [rows]}) == [wrong]


contents = st.dictionaries(st.tuples(st.integers(1, 3), st.integers(0, 3)), st.integers(0, 2), max_size=9)


@given(contents, contents, st.integers(1, 3))
def test_a_restricted_delta_changes_the_selected_rows_and_no_other(want: Content, have: Content, subject: int) -> None:
    chosen = selection({"key": {"subject": str(subject)}})
    delta = diff_rows("policy", policy(want), policy(have), complete=True)
    part = restricted(delta, chosen)
    expected = {(change.key.tobytes(), str(change)) for change in delta if change.key["subject"] == subject}
    assert {(change.key.tobytes(), str(change)) for change in part} == expected


@given(contents, contents, st.integers(1, 3))
def test_the_same_holds_for_small_tables(want: Content, have: Content, subject: int) -> None:
    def rows(content: Content) -> DictRows:
        return DictRows({f"{one}-{two}": value for (one, two), value in content.items()})

    chosen = selection(*({"key": f"{subject}-{peer}"} for peer in range(4)))
    delta = diff_rows("small", rows(want), rows(have), complete=True)
    part = restricted(delta, chosen)
    assert set(part) == {change for change in delta if str(change.key).startswith(f"{subject}-")}


def test_selected_rows_are_those_of_the_table_in_its_own_shape() -> None:
    content = policy({(1, 1): 1, (2, 1): 1})
    chosen = selection({"key": {"subject": "2"}}).of("policy", content)
    assert isinstance(chosen, Columns)
    assert [int(key["subject"]) for key, _ in pairs(chosen)] == [2]
