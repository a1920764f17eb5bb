"""Addresses of a node: stable for their workload, reused late, and refused with a reason."""

from __future__ import annotations

from contextlib import closing
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import CompileError
from reconciler.store import addresses as module
from reconciler.store.addresses import Addresses
from reconciler.store.embedded import EmbeddedStore

CIDR4, CIDR6 = IPv4Network("10.44.0.0/29"), IPv6Network("fd44::/125")
FIRST4, FIRST6 = IPv4Address("10.44.0.1"), IPv6Address("fd44::1")


def pool(store: EmbeddedStore, cidr4: IPv4Network | None = CIDR4, cidr6: IPv6Network | None = None) -> Addresses:
    return Addresses(store, "alpha", cidr4, cidr6)


def test_each_workload_gets_an_address_of_each_family(store: EmbeddedStore) -> None:
    found = pool(store, CIDR4, CIDR6).allocate(["a/x", "a/y"])
    assert found == {"a/x": (FIRST4, FIRST6), "a/y": (FIRST4 + 1, FIRST6 + 1)}
    assert pool(store, CIDR4, None).allocate(["a/x"]) == {"a/x": (FIRST4, None)}


def test_a_workload_keeps_its_address_across_restarts_and_neighbours(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        first = pool(store).allocate(["a", "b", "c"])
    with closing(EmbeddedStore(path)) as store:
        before = store.range("/").revision
        assert pool(store).allocate(["c", "a"]) == {ref: first[ref] for ref in ("c", "a")}
        assert store.range("/").revision == before


def test_network_and_broadcast_are_never_given(store: EmbeddedStore) -> None:
    found = pool(store).allocate([str(number) for number in range(6)])
    assert {pair[0] for pair in found.values()} == set(CIDR4.hosts())


def test_in_ipv6_only_the_routers_anycast_is_never_given(store: EmbeddedStore) -> None:
    found = pool(store, None, CIDR6).allocate([str(number) for number in range(7)])
    assert {pair[1] for pair in found.values()} == set(CIDR6) - {CIDR6.network_address}


def test_the_smallest_cidrs_are_used_whole(store: EmbeddedStore) -> None:
    found = pool(store, IPv4Network("10.44.0.0/31"), IPv6Network("fd44::/128")).allocate(["a"])
    assert found == {"a": (IPv4Address("10.44.0.0"), IPv6Address("fd44::"))}


def test_a_used_up_cidr_is_named_and_nothing_is_written(store: EmbeddedStore) -> None:
    addresses = pool(store, CIDR4, CIDR6)
    addresses.allocate([str(number) for number in range(5)])
    before = store.range("/").revision
    with pytest.raises(CompileError, match=r"10\.44\.0\.0/29 of alpha is used up: 5 .* 2 more are wanted, 1 are free"):
        addresses.allocate([str(number) for number in range(7)])
    assert store.range("/").revision == before


def test_released_addresses_are_reused_last_and_the_oldest_first(store: EmbeddedStore) -> None:
    addresses = pool(store)
    addresses.allocate(["a", "b", "c", "d"])
    addresses.release(["b"])
    addresses.release(["a"])
    order = [addresses.allocate([name])[name][0] for name in ("e", "f", "g", "h")]
    assert order == [FIRST4 + 4, FIRST4 + 5, FIRST4 + 1, FIRST4]


def test_releasing_twice_or_nothing_is_success(store: EmbeddedStore) -> None:
    addresses = pool(store)
    addresses.allocate(["a"])
    addresses.release(["a", "never there"])
    addresses.release(["a"])
    assert addresses.held() == {}


def test_fixed_addresses_are_honoured_before_others(store: EmbeddedStore) -> None:
    found = pool(store).allocate(["a", "b"], {"b": (FIRST4, None)})
    assert found == {"a": (FIRST4 + 1, None), "b": (FIRST4, None)}


def test_a_workload_that_asks_for_another_address_gives_back_its_own(store: EmbeddedStore) -> None:
    addresses = pool(store)
    addresses.allocate(["a"])
    addresses.allocate(["a"], {"a": (FIRST4 + 4, None)})
    assert addresses.held() == {FIRST4 + 4: "a"}


def test_two_workloads_may_swap_their_fixed_addresses(store: EmbeddedStore) -> None:
    addresses = pool(store)
    addresses.allocate(["a", "b"], {"a": (FIRST4, None), "b": (FIRST4 + 1, None)})
    swapped = {"a": (FIRST4 + 1, None), "b": (FIRST4, None)}
    assert addresses.allocate(["a", "b"], swapped) == swapped


def test_a_renamed_workload_takes_its_fixed_address_along(store: EmbeddedStore) -> None:
    addresses = pool(store)
    addresses.allocate(["old", "other"], {"old": (FIRST4, None)})
    addresses.allocate(["new", "other"], {"new": (FIRST4, None)})
    assert addresses.held() == {FIRST4: "new", FIRST4 + 1: "other"}


@pytest.mark.parametrize(
    ("fixed", "complaint"),
    [
        ({"b": FIRST4}, r"b asks for 10\.44\.0\.1, which a has"),
        ({"b": IPv4Address("10.9.9.9")}, r"b asks for 10\.9\.9\.9, which 10\.44\.0\.0/29 of alpha cannot give"),
        ({"b": CIDR4.broadcast_address}, r"b asks for 10\.44\.0\.7, which .* cannot give"),
        ({"b": FIRST4 + 3, "c": FIRST4 + 3}, r"c asks for 10\.44\.0\.4, which b has"),
    ],
)
def test_a_fixed_address_that_cannot_be_given_is_refused(
    store: EmbeddedStore, fixed: dict[str, IPv4Address], complaint: str
) -> None:
    addresses = pool(store)
    addresses.allocate(["a"])
    with pytest.raises(CompileError, match=complaint):
        addresses.allocate(["a", "b", "c"], {ref: (address, None) for ref, address in fixed.items()})


def test_addresses_of_the_host_are_never_given(store: EmbeddedStore) -> None:
    found = Addresses(store, "alpha", CIDR4, None, excluded=[FIRST4]).allocate(["a"])
    assert found == {"a": (FIRST4 + 1, None)}


def test_a_changed_cidr_moves_its_workloads(store: EmbeddedStore) -> None:
    pool(store).allocate(["a"])
    moved = pool(store, IPv4Network("10.45.0.0/29"))
    assert moved.allocate(["a"]) == {"a": (IPv4Address("10.45.0.1"), None)}
    assert moved.held() == {IPv4Address("10.45.0.1"): "a"}


def test_nodes_and_clusters_do_not_see_each_other(store: EmbeddedStore) -> None:
    pool(store).allocate(["a"])
    assert Addresses(store, "alpha2", CIDR4, None).allocate(["b"]) == {"b": (FIRST4, None)}
    assert Addresses(store, "alpha", CIDR4, None, cluster="other").held() == {}


def test_released_addresses_do_not_pile_up(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_RELEASED", 3)
    addresses = pool(store, None, IPv6Network("fd44::/64"))
    for number in range(12):
        addresses.allocate([str(number)])
        addresses.release([str(number)])
    assert len(store.range("/").items) <= 4


def test_a_thousand_at_once_are_one_transaction(store: EmbeddedStore) -> None:
    addresses = pool(store, IPv4Network("10.44.0.0/16"), IPv6Network("fd44::/64"))
    before = store.range("/").revision
    assert len(set(addresses.allocate([f"ns/w{number}" for number in range(1000)]).values())) == 1000
    assert store.range("/").revision == before + 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from("abcdefgh"))), max_size=10))
def test_no_address_ever_has_two_owners(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, set[str]]]
) -> None:
    with closing(EmbeddedStore(tmp_path_factory.mktemp("store") / "store.db")) as store:
        addresses = pool(store, IPv4Network("10.44.0.0/28"))
        held: dict[str, object] = {}
        for release, refs in steps:
            if release:
                addresses.release(refs)
                held = {ref: address for ref, address in held.items() if ref not in refs}
            else:
                found = {ref: pair[0] for ref, pair in addresses.allocate(sorted(refs)).items()}
                assert all(held.get(ref, address) == address for ref, address in found.items())
                held |= found
            assert {ref: address for address, ref in addresses.held().items()} == held
