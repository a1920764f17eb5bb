"""What a store has lost comes back from those that still know it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_network
from pathlib import Path

import pytest

from reconciler.model.cluster import Pool
from reconciler.model.labels import Label
from reconciler.store.addresses import Addresses
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.identities import Identities
from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import Item, Snapshot, Store, root
from reconciler.store.put_back import put_back

ROOT = root("demo")
POOLS = [Pool(ip_network("10.46.0.0/16"), 24)]
CIDR = ip_network("10.46.0.0/24")
WEB = frozenset({Label("k8s", "app", "web")})
Known = dict[str, Item]


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Callable[[], EmbeddedStore]]:
    """Each time another store, which is empty."""
    with ExitStack() as opened:
        number = iter(range(9))
        yield lambda: opened.enter_context(closing(EmbeddedStore(tmp_path / f"{next(number)}.db")))


def snapshot(store: Store) -> Snapshot:
    return store.range(ROOT)


def known(store: Store) -> Known:
    return {item.key: item for item in snapshot(store).items}


def put_all_back(store: Store, node: str, before: Known) -> None:
    while put_back(store, ROOT, node, before, snapshot(store)):
        pass


def addresses(store: Store) -> Addresses:
    return Addresses(store, "alpha", CIDR, None, cluster="demo")


def filled(store: Store, *nodes: str) -> Known:
    store.put(f"{ROOT}layout", b"1")
    for node in nodes or ("alpha", "beta"):
        NodeCidrs(store, POOLS, "demo").allocate(node)
    held = addresses(store)
    held.allocate(["default/a", "default/b"])
    held.release(["default/a"])
    Identities(store, 0, "demo").allocate([WEB])
    return known(store)


def test_a_store_that_comes_back_empty_has_again_what_it_had(
    store: EmbeddedStore, lost: Callable[[], EmbeddedStore]
) -> None:
    before, empty = filled(store), lost()
    put_all_back(empty, "alpha", before)
    assert {key: item.value for key, item in known(empty).items()} == {key: item.value for key, item in before.items()}


def test_of_an_older_store_the_newer_addresses_come_back(
    store: EmbeddedStore, lost: Callable[[], EmbeddedStore]
) -> None:
    older = lost()
    filled(older)
    filled(store)
    addresses(store).release(["default/b"])
    addresses(store).allocate(["default/c"])
    put_all_back(older, "alpha", known(store))
    assert addresses(older).held() == addresses(store).held()


def test_what_others_gave_back_meanwhile_stays_away(store: EmbeddedStore) -> None:
    before = filled(store)
    NodeCidrs(store, POOLS, "demo").release(["beta"])
    after = known(store)
    assert not put_back(store, ROOT, "alpha", before, snapshot(store))
    assert known(store) == after


def test_a_cidr_that_somebody_else_has_now_is_not_put_back(
    store: EmbeddedStore, lost: Callable[[], EmbeddedStore], caplog: pytest.LogCaptureFixture
) -> None:
    before, empty = filled(store, "alpha"), lost()
    NodeCidrs(empty, POOLS, "demo").allocate("newcomer")
    put_all_back(empty, "alpha", before)
    assert NodeCidrs(empty, POOLS, "demo").held() == {"newcomer": (CIDR, None)}
    assert "10.46.0.0/24 of it is another node's now" in caplog.text


def test_a_number_that_was_given_anew_is_not_taken_back(
    store: EmbeddedStore, lost: Callable[[], EmbeddedStore]
) -> None:
    before, empty = filled(store), lost()
    number = Identities(store, 0, "demo").allocate([WEB])[WEB]
    key = next(key for key in before if key.endswith(f"/numbers/{number}"))
    empty.put(key, b'{"labels": [["k8s", "app", "other"]], "unused": false}')
    put_all_back(empty, "alpha", before)
    assert Identities(empty, 0, "demo").all() == {number: frozenset({Label("k8s", "app", "other")})}
