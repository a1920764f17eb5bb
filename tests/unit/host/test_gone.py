"""What nodes had that are gone goes back, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from reconciler.host.gone import Gone
from reconciler.store.addresses import Addresses
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import Store, root
from reconciler.store.registrations import node_key
from reconciler.store.reports import Pushed, Report, announce, tell

CIDR = IPv4Network("10.46.1.0/24")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """beta has all that a node can have."""
    store = EmbeddedStore(tmp_path / "store.sqlite")
    NodeCidrs(store, (), "demo").allocate("beta", (CIDR, None))
    Addresses(store, "beta", CIDR, None, cluster="demo").allocate(["default/web"])
    tell(store, "demo", Report("beta", "c1", "applied", "now"))
    yield store
    store.close()


def left(store: Store) -> list[str]:
    return [item.key for item in store.range("/plumbline/").items if "beta" in item.key]


def test_a_node_that_is_gone_twice_gives_everything_back(store: Store) -> None:
    gone, before = Gone(), left(store)
    gone.collect(store, "demo", "c1", ["alpha"])
    assert left(store) == before
    gone.collect(store, "demo", "c1", ["alpha"])
    assert left(store) == []


@pytest.mark.parametrize("why", ["a manifest names it", "it is registered", "another commit is newer"])
def test_a_node_that_may_be_there_keeps_everything(store: Store, why: str) -> None:
    if why == "it is registered":
        store.put(node_key("demo", "beta"), b"{}")
    if why == "another commit is newer":
        announce(store, "demo", Pushed("c2", "refs/heads/main", "now", "alpha"))
    gone, before = Gone(), left(store)
    for _ in range(3):
        gone.collect(store, "demo", "c1", ["alpha", "beta"] if why == "a manifest names it" else ["alpha"])
    assert left(store) == before
    assert f"{root('demo')}node-cidrs/nodes/beta" in before
