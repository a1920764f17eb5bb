"""What a host makes of a store that it shares: a real file, and what others have written there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from reconciler.config import Config
from reconciler.host.sharing import Sharing
from reconciler.model.cluster import Cluster, JoinedCluster, StoreChoice
from reconciler.model.facts import Facts
from reconciler.model.labels import Label
from reconciler.model.origin import Origin
from reconciler.store.announcements import Announcement, endpoint_key
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.identities import Identities, identities_prefix

WEB = frozenset({Label("k8s", "app", "web")})
STALE = Facts("alpha", {}, {}, frozenset())  # of before others said anything
WEST = JoinedCluster("west", 1, StoreChoice())
GRACE_S = StoreChoice().ttl_s


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(EmbeddedStore(tmp_path / "store.sqlite")) as opened:
        yield opened


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Sharing]:
    config = Config("alpha", tmp_path, state_directory=tmp_path / "state", store_file=tmp_path / "store.sqlite")
    cluster = Cluster("demo", Origin("", 1, "Cluster", "demo", ""), clusters=(WEST,))
    with closing(Sharing(config, cluster)) as opened:
        yield opened


def collect_all(sharing: Sharing) -> None:
    """To mark what nobody uses, and to give it back."""
    for now_s in (0.0, 1.0, 2 * GRACE_S):
        sharing.collect(STALE, now_s)


def test_an_identity_that_the_store_announces_is_kept_though_this_host_is_behind(
    sharing: Sharing, store: EmbeddedStore
) -> None:
    number = Identities(store, 0, "demo").allocate([WEB])[WEB]
    said = Announcement((ip_address("10.46.2.2"),), number, frozenset(), "web.yaml", 1, "c")
    store.put(endpoint_key("demo", "beta", "default/web"), said.encoded())
    collect_all(sharing)
    assert Identities(store, 0, "demo").all() == {number: WEB}


def test_an_identity_that_nobody_announces_is_given_back(sharing: Sharing, store: EmbeddedStore) -> None:
    Identities(store, 0, "demo").allocate([WEB])
    collect_all(sharing)
    assert Identities(store, 0, "demo").all() == {}


def unreadable(store: EmbeddedStore) -> str:
    """The key of an identity in the west that is none; a workload there has it."""
    number = Identities(store, WEST.id, "west").allocate([WEB])[WEB]
    said = Announcement((ip_address("10.46.2.2"),), number, frozenset(), "web.yaml", 1, "c")
    store.put(endpoint_key("west", "beta", "default/web"), said.encoded())
    key = f"{identities_prefix('west')}{WEST.id}/numbers/{number}"
    store.put(key, b"garbage")
    return key


def test_a_joined_cluster_that_cannot_be_read_is_refused_with_the_reason(
    sharing: Sharing, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    key = unreadable(store)
    sharing.others()
    [west] = sharing.status()["clusters"]
    assert west["state"] == "refused"
    assert f"{key} in the store is not an identity" in west["reason"]
    assert "nothing of cluster west is known" in caplog.text


def test_a_joined_cluster_is_heard_once_it_can_be_read(sharing: Sharing, store: EmbeddedStore) -> None:
    key = unreadable(store)
    sharing.others()
    store.delete(key)
    sharing.others()
    assert [one["state"] for one in sharing.status()["clusters"]] == ["connected"]
