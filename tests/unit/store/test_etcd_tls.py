"""etcd with TLS and client certificates: who is let in, and what is said to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.model.cluster import Cluster, StoreChoice, StoreKind
from reconciler.model.origin import Origin
from reconciler.store import etcd_servers
from reconciler.store.credentials import Credentials
from reconciler.store.opening import open_store
from reconciler.store.protocol import Store

from .certificates import Authority
from .contract import polled
from .etcd_server import EtcdServer, running


@dataclass(frozen=True)
class Site:
    server: EtcdServer
    authority: Authority
    stranger: Authority


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder, "pt-authority"), Authority(folder, "pt-stranger")
    own = authority.credentials("pt-etcd")
    tls = f"--client-cert-auth --trusted-ca-file {own.ca} --cert-file {own.cert} --key-file {own.key}"
    with running(folder / "etcd", tls.split()) as server:
        yield Site(server, authority, stranger)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses does not change its mind."""
    monkeypatch.setattr(etcd_servers, "TIMEOUT_S", 1.5)


Opened = Callable[[Credentials | None], Store]


@pytest.fixture
def opened(site: Site, tmp_path: Path) -> Iterator[Opened]:
    stores: list[Store] = []

    def open_with(credentials: Credentials | None) -> Store:
        choice = StoreChoice(StoreKind.ETCD, (site.server.endpoint,))
        cluster = Cluster("demo", Origin("", 1, "Cluster", "demo", ""), store=choice)
        stores.append(open_store(cluster, tmp_path / "unused", credentials))
        return stores[-1]

    yield open_with
    for store in stores:
        store.close()


def test_a_host_with_the_authoritys_certificate_reads_writes_and_watches(site: Site, opened: Opened) -> None:
    store = opened(site.authority.credentials("alpha"))
    with closing(store.watch("/a", store.range("/a").revision)) as watch:
        store.put("/a", b"1")
        assert [event.value for event in polled(watch, 1)] == [b"1"]


def test_a_certificate_of_another_authority_is_refused_in_words(site: Site, opened: Opened) -> None:
    store = opened(site.stranger.credentials("mallory", ca=site.authority.ca))
    with pytest.raises(StoreError, match="refuses this host's client certificate") as caught:
        store.get("/a")
    assert site.server.endpoint in str(caught.value)
    assert "store_cert" in caught.value.remedy


def test_a_host_without_a_certificate_is_told_that_one_is_wanted(site: Site, opened: Opened) -> None:
    with pytest.raises(StoreError, match=r"refuses this host's client certificate \(.*certificate"):
        opened(Credentials(site.authority.ca)).get("/a")


def test_a_server_of_another_authority_is_not_believed(site: Site, opened: Opened) -> None:
    with pytest.raises(StoreError, match="its certificate is not accepted: "):
        opened(replace(site.authority.credentials("beta"), ca=site.stranger.ca)).get("/a")


def test_speaking_without_tls_to_a_server_with_it_is_told(opened: Opened) -> None:
    with pytest.raises(StoreError, match="does it want TLS"):
        opened(None).get("/a")


def test_speaking_tls_to_a_server_without_it_is_told(site: Site, tmp_path: Path) -> None:
    with running(tmp_path / "plain") as plain:
        choice = StoreChoice(StoreKind.ETCD, (plain.endpoint,))
        cluster = Cluster("demo", Origin("", 1, "Cluster", "demo", ""), store=choice)
        store = open_store(cluster, tmp_path / "unused", site.authority.credentials("gamma"))
        with closing(store), pytest.raises(StoreError, match="does it speak TLS"):
            store.get("/a")


def test_a_file_that_is_not_there_is_named(site: Site, opened: Opened, tmp_path: Path) -> None:
    missing = replace(site.authority.credentials("delta"), key=tmp_path / "none.key")
    with pytest.raises(StoreError, match=r"none\.key: cannot be read: No such file") as caught:
        opened(missing)
    assert "store_key" in caught.value.remedy


def test_a_cluster_of_one_host_gets_a_file(tmp_path: Path) -> None:
    cluster = Cluster("demo", Origin("", 1, "Cluster", "demo", ""))
    with closing(open_store(cluster, tmp_path / "store.sqlite")) as store:
        store.put("/a", b"1")
    assert (tmp_path / "store.sqlite").exists()
