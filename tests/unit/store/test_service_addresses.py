"""Addresses and node ports of services: kept, the same for whoever asks, and taken from the absent only in need."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.remembered import Remembered
from reconciler.errors import CompileError
from reconciler.store.addresses import Allocation, IpAddress
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.mirror import Mirror
from reconciler.store.protocol import Store
from reconciler.store.service_addresses import NodePorts, ServiceAddresses

from .test_mirror import Counted, until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return EmbeddedStore(tmp_path / "store.sqlite")


def addresses(
    store: Store, cidr: str = "10.96.0.0/29", memory: Remembered[Allocation] | None = None
) -> ServiceAddresses:
    return ServiceAddresses(store, ip_network(cidr), "demo", memory=memory)


def ports(store: Store, first: int = 30000, last: int = 30002) -> NodePorts:
    return NodePorts(store, first, last, "demo", Random(1))


def test_a_service_keeps_its_address_while_it_is_away(store: Store) -> None:
    first = addresses(store).allocate({"a": None, "b": None})
    assert addresses(store).allocate({"b": None, "c": None})["b"] == first["b"]
    assert addresses(store).allocate({"a": None, "b": None, "c": None})["a"] == first["a"]


wishes = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from([None, *map(ip_address, ("10.96.0.2", "10.96.0.4"))])
)


@settings(deadline=None)
@given(steps=st.lists(st.tuples(wishes, st.booleans()), max_size=8))
def test_what_is_remembered_decides_nothing(steps: list[tuple[dict[str, IpAddress | None], bool]]) -> None:
    """Who remembers and who does not take turns with somebody else in a store each, and are given the same."""
    memory: Remembered[Allocation] = Remembered()
    with TemporaryDirectory() as folder:
        one, other = (EmbeddedStore(Path(folder) / name) for name in ("one", "other"))
        with closing(one), closing(other):
            for wanted, by_somebody_else in steps:
                kept = Remembered() if by_somebody_else else memory
                assert _outcome(addresses(one, memory=kept), wanted) == _outcome(addresses(other), wanted)
            assert one.range("").items == other.range("").items


def _outcome(allocator: ServiceAddresses, wanted: dict[str, IpAddress | None]) -> dict[str, IpAddress] | str:
    try:
        return allocator.allocate(wanted)
    except CompileError as error:
        return str(error)


def test_what_a_store_has_lost_is_written_again_by_who_remembers_it(store: Store) -> None:
    memory: Remembered[Allocation] = Remembered()
    given = addresses(store, memory=memory).allocate({"a": None})
    (item,) = store.range("").items
    store.delete(item.key)
    assert addresses(store, memory=memory).allocate({"a": None}) == given
    assert [one.key for one in store.range("").items] == [item.key]


def test_nothing_is_worked_out_again_while_the_store_says_the_same(store: Store) -> None:
    memory: Remembered[Allocation] = Remembered()
    allocator = addresses(store, memory=memory)
    _written, one, other = (allocator.allocate({"a": None})["a"] for _ in range(3))
    assert one is other


def test_an_address_that_is_asked_for_is_given_and_to_nobody_else(store: Store) -> None:
    asked = ip_address("10.96.0.1")
    found = addresses(store).allocate({"a": asked, "b": None})
    assert found["a"] == asked != found["b"]


def test_an_address_for_the_outside_is_not_chosen_but_stays_with_whom_it_was_given(store: Store) -> None:
    first, second = ip_address("10.96.0.1"), ip_address("10.96.0.2")
    assert ServiceAddresses(store, ip_network("10.96.0.0/29"), "demo", {first}).allocate({"a": None}) == {"a": second}
    found = ServiceAddresses(store, ip_network("10.96.0.0/29"), "demo", {first, second}).allocate(
        {"a": None, "b": first}
    )
    assert found == {"a": second, "b": first}


def test_families_have_addresses_of_their_own(store: Store) -> None:
    four = addresses(store).allocate({"a": None})
    six = addresses(store, "fd96::/120").allocate({"a": None})
    assert (four["a"] in ip_network("10.96.0.0/29"), six["a"] in ip_network("fd96::/120")) == (True, True)
    assert addresses(store).allocate({"a": None}) == four


def test_in_need_the_addresses_of_absent_services_are_used(store: Store) -> None:
    addresses(store).allocate(dict.fromkeys("abcdef"))
    found = addresses(store).allocate(dict.fromkeys("ghijkl"))
    assert len(set(found.values())) == 6


def test_a_range_that_is_used_up_is_said_with_the_way_out(store: Store) -> None:
    with pytest.raises(CompileError, match=r"services: 10\.96\.0\.0/29 .* used up") as caught:
        addresses(store).allocate(dict.fromkeys("abcdefg"))
    assert "larger services.cidrs" in caught.value.remedy


def test_a_node_port_stays_even_while_its_service_is_away(store: Store) -> None:
    first = ports(store).allocate({"a 80/6": 0, "b 80/6": 0})
    ports(store).allocate({"b 80/6": 0})
    assert ports(store).allocate({"a 80/6": 0, "b 80/6": 0}) == first
    assert len(set(first.values())) == 2


def test_a_node_port_that_is_asked_for_is_given_whoever_held_it(store: Store) -> None:
    (held,) = ports(store).allocate({"a 80/6": 0}).values()
    found = ports(store).allocate({"a 80/6": 0, "b 80/6": held, "c 80/6": 80})
    assert (found["b 80/6"], found["c 80/6"]) == (held, 80)
    assert found["a 80/6"] != held


def test_protocols_have_node_ports_of_their_own(store: Store) -> None:
    found = ports(store, 30000, 30000).allocate({"a 53/6": 0, "a 53/17": 0})
    assert set(found.values()) == {30000}


def test_a_port_that_a_nodes_address_has_already_is_not_chosen(store: Store) -> None:
    avoided = {(6, 30000), (6, 30001), (17, 30002)}
    assert NodePorts(store, 30000, 30002, "demo", avoided=avoided).allocate({"a 80/6": 0}) == {"a 80/6": 30002}


def test_in_need_a_node_port_of_an_absent_service_is_used(store: Store) -> None:
    ports(store).allocate(dict.fromkeys(("a 1/6", "b 1/6", "c 1/6"), 0))
    assert ports(store).allocate({"d 1/6": 0})["d 1/6"] in range(30000, 30003)


def test_node_ports_that_are_used_up_are_said_with_the_way_out(store: Store) -> None:
    with pytest.raises(CompileError, match="no node port is left for b 1/6: 30000 to 30000 are in use"):
        ports(store, 30000, 30000).allocate({"a 1/6": 0, "b 1/6": 0})


def test_a_host_knows_what_was_given_while_the_store_is_away(tmp_path: Path) -> None:
    beneath = Counted(tmp_path / "store.sqlite")
    with closing(Mirror(beneath, "demo", "alpha")) as mirror:
        mirror.follow(lambda keys: None)
        given = addresses(mirror).allocate({"a": None}), ports(mirror).allocate({"a 80/6": 0})
        until(lambda: mirror.synchronised)
        beneath.away = True
        assert (addresses(mirror).allocate({"a": None}), ports(mirror).allocate({"a 80/6": 0})) == given
