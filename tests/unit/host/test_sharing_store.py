"""What a host makes of a store that it shares: a real file, and what others have written there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from reconciler.config import Config
from reconciler.host.sharing import Sharing
from reconciler.model.cluster import Cluster, StoreChoice
from reconciler.model.facts import Facts
from reconciler.model.labels import Label
from reconciler.model.origin import Origin
from reconciler.store.announcements import Announcement, endpoint_key
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.identities import Identities

WEB = frozenset({Label("k8s", "app", "web")})
STALE = Facts("alpha", {}, {}, frozenset())  # of before others said anything
GRACE_S = StoreChoice().ttl_s


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(EmbeddedStore(tmp_path / "store.sqlite")) as opened:
        yield opened


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Sharing]:
    config = Config("alpha", tmp_path, state_directory=tmp_path / "state", store_file=tmp_path / "store.sqlite")
    cluster = Cluster("demo", Origin("", 1, "Cluster", "demo", ""))
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
