"""CIDRs of nodes: kept, never overlapping, and refused with a reason."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.errors import CompileError
from reconciler.model.cluster import Pool
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import root

POOL4 = Pool(IPv4Network("10.44.0.0/22"), 24)
POOL6 = Pool(IPv6Network("fd44::/48"), 112)


def net4(text: str) -> IPv4Network:
    return IPv4Network(text)


def test_each_node_gets_a_cidr_of_each_pool(store: EmbeddedStore) -> None:
    cidrs = NodeCidrs(store, [POOL4, POOL6])
    assert cidrs.allocate("alpha") == (net4("10.44.0.0/24"), IPv6Network("fd44::/112"))
    assert cidrs.allocate("beta") == (net4("10.44.1.0/24"), IPv6Network("fd44::1:0/112"))
    assert cidrs.held() == {name: cidrs.allocate(name) for name in ("alpha", "beta")}


def test_a_node_keeps_its_cidr_and_nothing_is_written_again(store: EmbeddedStore) -> None:
    first = NodeCidrs(store, [POOL4]).allocate("alpha")
    before = store.range("/").revision
    assert NodeCidrs(store, [POOL4]).allocate("alpha") == first
    assert store.range("/").revision == before


def test_a_node_keeps_its_cidr_when_the_pools_sizes_change(store: EmbeddedStore) -> None:
    first = NodeCidrs(store, [POOL4]).allocate("alpha")
    assert NodeCidrs(store, [Pool(net4("10.44.0.0/16"), 26)]).allocate("alpha") == first


def test_a_node_outside_the_pool_gets_a_new_one(store: EmbeddedStore) -> None:
    NodeCidrs(store, [POOL4]).allocate("alpha")
    assert NodeCidrs(store, [Pool(net4("10.50.0.0/16"), 24)]).allocate("alpha") == (net4("10.50.0.0/24"), None)


def test_without_a_pool_a_node_has_what_its_manifest_says(store: EmbeddedStore) -> None:
    assert NodeCidrs(store, []).allocate("alpha") == (None, None)
    assert NodeCidrs(store, []).allocate("alpha", (net4("10.1.0.0/24"), None)) == (net4("10.1.0.0/24"), None)


def test_a_cidr_that_a_manifest_gives_is_not_handed_out(store: EmbeddedStore) -> None:
    cidrs = NodeCidrs(store, [POOL4])
    cidrs.allocate("alpha", (net4("10.44.0.128/25"), None))
    assert cidrs.allocate("beta", others={"gamma": [net4("10.44.1.0/24")]}) == (net4("10.44.2.0/24"), None)


def test_a_manifests_cidr_that_overlaps_another_nodes_is_refused_by_name(store: EmbeddedStore) -> None:
    cidrs = NodeCidrs(store, [POOL4])
    cidrs.allocate("alpha")
    with pytest.raises(CompileError, match=r"Node beta is to have 10\.44\.0\.0/25, .* 10\.44\.0\.0/24 of Node alpha"):
        cidrs.allocate("beta", (net4("10.44.0.0/25"), None))


def test_a_cidr_that_was_given_back_is_not_the_next_one(store: EmbeddedStore) -> None:
    cidrs = NodeCidrs(store, [POOL4])
    cidrs.allocate("alpha")
    cidrs.release(["alpha", "never there"])
    assert [cidrs.allocate(name)[0] for name in "abcd"] == [net4(f"10.44.{one}.0/24") for one in (1, 2, 3, 0)]


def test_a_cidr_of_a_manifest_does_not_move_the_search(store: EmbeddedStore) -> None:
    cidrs = NodeCidrs(store, [POOL4])
    cidrs.allocate("alpha")
    cidrs.allocate("beta", (net4("10.44.3.0/24"), None))
    cidrs.release(["alpha", "beta"])
    assert cidrs.allocate("gamma") == (net4("10.44.1.0/24"), None)


def test_a_used_up_pool_is_named(store: EmbeddedStore) -> None:
    cidrs = NodeCidrs(store, [POOL4])
    for name in "abcd":
        cidrs.allocate(name)
    with pytest.raises(CompileError, match=r"pool 10\.44\.0\.0/22 is used up: no CIDR of /24 is free"):
        cidrs.allocate("e")


def test_clusters_do_not_see_each_other(store: EmbeddedStore) -> None:
    NodeCidrs(store, [POOL4]).allocate("alpha")
    assert NodeCidrs(store, [POOL4], "other").held() == {}
    assert all(item.key.startswith(root("default")) for item in store.range("/").items)


networks = st.builds(
    lambda number, prefix: IPv4Network((int(POOL4.cidr.network_address) + number, prefix), strict=False),
    st.integers(0, 1023),
    st.integers(22, 28),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | networks, st.booleans()), max_size=12))
def test_no_two_nodes_ever_overlap(store: EmbeddedStore, steps: list[tuple[str, IPv4Network | None, bool]]) -> None:
    cidrs = NodeCidrs(store, [POOL4])
    cidrs.release("abcdef")
    for name, wanted, gone in steps:
        if gone:
            cidrs.release([name])
        else:
            try:
                cidrs.allocate(name, (wanted, None))
            except CompileError:
                continue
        held = [pair[0] for pair in cidrs.held().values() if pair[0]]
        assert not any(one.overlaps(other) for place, one in enumerate(held) for other in held[:place])


def test_what_is_stored_is_readable(store: EmbeddedStore) -> None:
    NodeCidrs(store, [POOL4, POOL6]).allocate("rack/1")
    item = store.get(f"{root('default')}node-cidrs/nodes/rack%2F1")
    assert item
    assert item.value == b'["10.44.0.0/24", "fd44::/112"]'
