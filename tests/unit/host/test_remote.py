"""Columns of other hosts' endpoints follow what these announce."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import numpy as np

from reconciler.host.remote import RemoteTable, in_full, joined
from reconciler.model.facts import RemoteEndpoints
from reconciler.store.announcements import Announcement, endpoint_key
from reconciler.store.protocol import Item

ONE, OTHER = IPv4Address("10.0.0.1"), IPv6Address("fd00::1")


def said(
    name: str, *addresses: IPv4Address | IPv6Address, node: str = "beta", identity: int = 300, at: int = 1
) -> Item:
    key = endpoint_key("demo", node, f"default/{name}")
    return Item(key, Announcement(addresses, identity, frozenset(), "a.yaml", 3, "c" * 40).encoded(), at)


def shown(found: RemoteEndpoints) -> dict[int, tuple[str, str, int]]:
    """address -> workload, node, identity."""
    return {
        int(row["high"]) << 64 | int(row["low"]): (
            found.names[row["endpoint"]],
            found.nodes[row["endpoint"]],
            int(row["identity"]),
        )
        for row in found.rows
    }


def table(*items: Item, but: str = "alpha") -> RemoteTable:
    made = RemoteTable(but)
    made.replace(items)
    return made


def test_each_address_of_an_endpoint_is_a_row() -> None:
    found = table(said("web", ONE, OTHER)).columns()
    assert shown(found) == {in_full(one): ("default/web", "beta", 300) for one in (ONE, OTHER)}
    assert str(found.origins[found.rows["endpoint"][0]]) == "a.yaml:3 (Workload default/web) @ cccccccccccc"


def test_an_update_changes_only_what_it_names() -> None:
    known = table(said("web", ONE), said("db", OTHER))
    known.update({said("web").key: None, said("db").key: said("db", ONE, identity=301)})
    assert shown(known.columns()) == {in_full(ONE): ("default/db", "beta", 301)}


def test_columns_that_were_given_do_not_change_any_more() -> None:
    known = table(said("web", ONE))
    before = known.columns()
    known.update({said("web").key: None})
    known.update({said("db").key: said("db", OTHER)})
    assert shown(before) == {in_full(ONE): ("default/web", "beta", 300)}


def test_of_two_with_one_address_the_later_announcement_counts_until_it_goes() -> None:
    known = table(said("old", ONE, at=5), said("new", ONE, at=9, node="gamma"))
    assert shown(known.columns())[in_full(ONE)][0] == "default/new"
    known.update({said("new", node="gamma").key: None})
    assert shown(known.columns())[in_full(ONE)][0] == "default/old"


def test_one_s_own_announcements_are_not_heard() -> None:
    assert len(table(said("web", ONE, node="alpha")).columns()) == 0


def test_what_cannot_be_read_is_left_out() -> None:
    known = table(said("web", ONE), Item(said("db").key, b"nonsense", 1))
    assert len(known) == 1


def test_it_grows() -> None:
    many = [said(f"w{number}", IPv4Address(number), identity=number + 256) for number in range(1, 1000)]
    found = table(*many).columns()
    assert np.array_equal(np.sort(found.rows["identity"]), np.arange(257, 1256))


def test_of_clusters_with_one_address_the_first_has_it() -> None:
    here, there = table(said("web", ONE)).columns(), table(said("web", ONE, OTHER, node="x", identity=70000)).columns()
    assert {address: one[1] for address, one in shown(joined([here, there])).items()} == {
        in_full(ONE): "beta",
        in_full(OTHER): "x",
    }
