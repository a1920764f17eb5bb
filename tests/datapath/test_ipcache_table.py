"""Identities by address: what counts before, between and after a write and its flip, prefix by prefix."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation
from reconciler.kernel.ipcache import IpcacheTable
from reconciler.kernel.ipcache_rows import meaning
from reconciler.model.datapath import IPCACHE_KEY

from .harness import Address, Harness, Network, ipcache_rows

NONE = np.empty(0, IPCACHE_KEY)
State = Mapping[Network | Address, tuple[int, int]]


def row(text: str) -> Network | Address:
    return ip_network(text) if "/" in text else ip_address(text)


def as_set(rows: Columns) -> set[tuple[bytes, bytes]]:
    return {(key.tobytes(), value.tobytes()) for key, value in zip(rows.keys, rows.values, strict=True)}


def stage(datapath: Harness, wanted: State) -> None:
    delta = diff_rows("ipcache", ipcache_rows(wanted), datapath.ipcache.live(), complete=True)
    datapath.generation.begin()
    datapath.ipcache.write(delta.upserts(), delta.deletes())


def identity_in_kernel(datapath: Harness, address: IPv4Address) -> int:
    """As find_peer() in bpf/lib/ipcache.h."""
    epoch = datapath.generation.current.epoch
    exact, trie = datapath.maps.open("ipcache4"), datapath.maps.open("cidr4")
    number = np.frombuffer(address.packed, np.uint32)
    if identity := int(meaning(exact.lookup(number)[1], epoch).identity[0]):
        return identity
    key = np.zeros(1, trie.key_dtype)
    key["prefixlen"], key["address"] = 32, number
    return int(meaning(trie.lookup(key)[1], epoch).identity[0])


def identity_by_rule(state: State, address: IPv4Address) -> int:
    """The longest match."""
    if address in state:
        return state[address][0]
    covering = [one for one in state if isinstance(one, IPv4Network) and address in one]
    return state[max(covering, key=lambda one: one.prefixlen)][0] if covering else 0


PLACES: list[Network | Address] = [
    row(text)
    for text in (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.0/24",
        "10.1.1.0/31",
        "10.1.1.0",
        "10.1.1.1",
        "10.1.2.0/24",
    )
]
ADDRESSES = [
    ip_address(text) for text in ("1.1.1.1", "10.2.0.1", "10.1.9.9", "10.1.1.9", "10.1.1.0", "10.1.1.1", "10.1.2.1")
]
states = st.dictionaries(st.sampled_from(PLACES), st.tuples(st.integers(2, 4), st.integers(0, 3)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(states, min_size=1, max_size=5))
def test_each_address_means_the_old_state_until_the_flip_and_the_new_one_from_it_on(
    datapath: Harness, history: list[State]
) -> None:
    datapath.reset()
    old: State = {}
    for new in history:
        stage(datapath, new)
        assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(old))
        assert [identity_in_kernel(datapath, one) for one in ADDRESSES] == [
            identity_by_rule(old, one) for one in ADDRESSES
        ]
        datapath.generation.flip()
        assert [identity_in_kernel(datapath, one) for one in ADDRESSES] == [
            identity_by_rule(new, one) for one in ADDRESSES
        ]
        datapath.generation.finish()
        assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(new))
        assert [identity_in_kernel(datapath, one) for one in ADDRESSES] == [
            identity_by_rule(new, one) for one in ADDRESSES
        ]
        every = ipcache_rows(dict.fromkeys(PLACES, (0, 0))).keys
        assert as_set(datapath.ipcache.live(every)) == as_set(ipcache_rows(new))
        old = new


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=states, new=states)
def test_what_was_staged_and_never_flipped_is_taken_back_by_whoever_begins_next(
    datapath: Harness, old: State, new: State
) -> None:
    datapath.reset()
    datapath.become(ipcache=old)
    datapath.generation.finish()
    stage(datapath, new)
    maps = PinnedMaps(datapath.root)
    other = Generation(maps)
    table = IpcacheTable(maps, other)
    other.begin()
    assert as_set(table.live()) == as_set(ipcache_rows(old))
    assert [identity_in_kernel(datapath, one) for one in ADDRESSES] == [identity_by_rule(old, one) for one in ADDRESSES]
    assert sum(len(maps.open(name).read()[0]) for name in ("ipcache4", "cidr4")) == len(old)


def test_ipv6_is_as_ipv4(datapath: Harness) -> None:
    state = {row("::/0"): (2, 0), row("fd00::/16"): (3, 0), row("fd00::1"): (4, 1), row("fd00::2"): (5, 2)}
    datapath.become(ipcache=state)
    assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(state))
    assert len(datapath.maps.open("cidr6").read()[0]) == 2
    datapath.become(ipcache={})
    datapath.generation.finish()
    assert len(datapath.maps.open("ipcache6").read()[0]) + len(datapath.maps.open("cidr6").read()[0]) == 0


def test_a_row_that_is_rewritten_by_others_shows_and_is_repaired(datapath: Harness) -> None:
    state = {row("10.0.0.0/8"): (3, 0), row("10.1.0.0/16"): (4, 0), row("10.1.1.1"): (5, 1)}
    datapath.become(ipcache=state)
    for name in ("cidr4", "ipcache4"):
        map_ = datapath.maps.open(name)
        keys, values = map_.read()
        values["identity"] += 90
        values["flags"] = 0
        map_.update(keys, values)
    assert set(datapath.ipcache.live().values["identity"].tolist()) == {93, 94, 95}
    tampered = as_set(datapath.ipcache.live())
    assert as_set(datapath.ipcache.live(ipcache_rows(state).keys)) == tampered
    datapath.become(ipcache=state)
    assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(state))


def test_rows_that_others_add_or_delete_show_and_are_repaired(datapath: Harness) -> None:
    state = {row("10.0.0.0/8"): (3, 0), row("10.1.1.1"): (5, 1)}
    datapath.become(ipcache=state)
    trie = datapath.maps.open("cidr4")
    keys, values = trie.read()
    keys["prefixlen"] = 9
    values["identity"] = 9
    trie.update(keys, values)
    datapath.maps.open("ipcache4").delete(datapath.maps.open("ipcache4").read()[0])
    assert len(datapath.ipcache.live()) == 2
    datapath.become(ipcache=state)
    assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(state))


def test_a_strangers_copy_of_the_row_that_covers_it_shows_once_it_makes_a_difference(datapath: Harness) -> None:
    state = {row("10.0.0.0/8"): (3, 0)}
    datapath.become(ipcache=state)
    trie = datapath.maps.open("cidr4")
    keys, values = trie.read()
    keys["prefixlen"] = 9
    trie.update(keys, values)
    both = ipcache_rows({row("10.0.0.0/8"): (0, 0), row("10.0.0.0/9"): (0, 0)}).keys
    assert as_set(datapath.ipcache.live()) == as_set(datapath.ipcache.live(both)) == as_set(ipcache_rows(state))
    changed = {row("10.0.0.0/8"): (4, 0)}
    datapath.become(ipcache=changed)
    assert len(datapath.ipcache.live()) == len(datapath.ipcache.live(both)) == 2
    datapath.become(ipcache=changed)
    assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(changed))


def test_before_anything_is_loaded_there_are_no_rows_and_writing_is_an_error(pin_root: Path) -> None:
    maps = PinnedMaps(pin_root)
    table = IpcacheTable(maps, Generation(maps))
    assert len(table.live()) == 0
    with pytest.raises(KernelError, match="not pinned"):
        table.write(ipcache_rows({row("10.0.0.1"): (5, 0)}), NONE)


def test_a_full_map_is_an_error_and_what_was_staged_is_taken_back(pin_root: Path) -> None:
    Datapath(pin_root, map_sizes={"ipcache4": 4}).load()
    maps = PinnedMaps(pin_root)
    generation = Generation(maps)
    table = IpcacheTable(maps, generation)
    generation.begin()
    with pytest.raises(KernelError, match="map ipcache4 is full: 4 of 4 rows"):
        table.write(ipcache_rows({row(f"10.0.0.{n}"): (5, 0) for n in range(9)}), NONE)
    generation.begin()
    assert len(maps.open("ipcache4").read()[0]) == 0
