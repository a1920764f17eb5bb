"""The store that a cluster has chosen."""

from __future__ import annotations

from pathlib import Path

from reconciler.model.cluster import Cluster, StoreKind
from reconciler.store.credentials import Credentials
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.protocol import Store


def open_store(cluster: Cluster, file: Path, credentials: Credentials | None = None) -> Store:
    """`file` is where an embedded store is; `credentials` are for etcd, None without TLS.

    An etcd that cannot be reached now may be reached later: each call says. Raises StoreError if the file, or one of
    the credentials', cannot be used.
    """
    if cluster.store.kind is StoreKind.EMBEDDED:
        return EmbeddedStore(file)
    # Only here: with gRPC they cost a host that has no etcd some 0.1 s and some MB.
    from reconciler.store.etcd import EtcdStore
    from reconciler.store.etcd_servers import Servers
    from reconciler.store.layout import LayoutGate

    servers = Servers(cluster.store.endpoints, credentials)
    return EtcdStore(servers, LayoutGate(EtcdStore(servers), cluster.name))
