"""What the hosts of one cluster say in its store: this host's own cluster, or one that it is joined with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from reconciler.engine.distinct import distinct
from reconciler.host.remote import RemoteTable
from reconciler.model.facts import NO_REMOTE, RemoteEndpoints
from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.labels import LabelSet
from reconciler.store.announcements import endpoints_prefix, of_node
from reconciler.store.identities import CLUSTER_SHIFT, Identities, identities_prefix
from reconciler.store.mirror import Mirror
from reconciler.store.node_cidrs import NodeCidrs, Pair
from reconciler.store.protocol import root
from reconciler.store.registrations import Registration, node_key, nodes_prefix, registrations

log = logging.getLogger(__name__)

IpNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """registered  node -> what it says of itself
    cidrs       node -> what was given to it, whether it lives or not
    """

    registered: Mapping[str, Registration]
    cidrs: Mapping[str, Pair]

    def networks(self) -> list[IpNetwork]:
        return [network for pair in self.cidrs.values() for network in pair if network is not None]


class Hearing:
    """`store` is not this object's to close. `node`: this host's name there, '' in another cluster.

    `prefix` comes before the names of nodes.
    """

    def __init__(self, store: Mirror, cluster: str, cluster_id: int, *, node: str = "", prefix: str = "") -> None:
        self.store = store
        self.identities = Identities(store, cluster_id, cluster)
        self._cluster, self._id, self._node = cluster, cluster_id, node
        self._prefix = prefix
        self._endpoints = endpoints_prefix(cluster)
        self._table = RemoteTable(but=node, prefix=prefix)
        self._columns: RemoteEndpoints = NO_REMOTE
        self._labels: Mapping[int, LabelSet] = {}
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._filled = False
        self._labelled = True  # whether the labels of all endpoints are known: a store that was lost has them last
        self._nodes = (nodes_prefix(cluster), f"{root(cluster)}node-cidrs/nodes/")
        self._known_nodes: Nodes | None = None
        self._same_nodes = False

    def take(self, keys: frozenset[str]) -> bool:
        """Whether these changes are news to this host. Any thread."""
        mine = of_node(self._cluster, self._node) if self._node else "\0"
        told = {key for key in keys if key.startswith(self._endpoints) and not key.startswith(mine)}
        nodes = {key for key in keys if key.startswith(self._nodes)}
        labels = not self._labelled and any(key.startswith(identities_prefix(self._cluster)) for key in keys)
        with self._lock:
            self._pending |= told
            self._same_nodes &= not nodes
        return bool(told) or labels or bool(nodes - {node_key(self._cluster, self._node)})

    def nodes(self) -> Nodes:
        """The same object until something changes. Raises StoreError."""
        with self._lock:
            same, self._same_nodes = self._same_nodes, True
        if not (same and self._known_nodes is not None and self.store.synchronised):
            found = registrations(self.store.range(nodes_prefix(self._cluster)).items)
            held = NodeCidrs(self.store, (), self._cluster).held()
            self._known_nodes = Nodes(
                {self._prefix + name: one for name, one in found.items()},
                {self._prefix + name: pair for name, pair in held.items()},
            )
        return self._known_nodes

    def endpoints(self) -> tuple[RemoteEndpoints, Mapping[int, LabelSet]]:
        """And the labels of their identities; the same objects until something changes. Raises StoreError.

        Only what changed is looked at, once all was read.
        """
        with self._lock:
            changed, self._pending = self._pending, set()
        if not (self._filled and self.store.synchronised):
            self._table.replace(self.store.range(self._endpoints).items)
            self._filled = self.store.synchronised
        elif not changed and self._labelled:
            return self._columns, self._labels
        self._table.update({key: self.store.get(key) for key in changed})
        columns = self._table.columns()
        numbers: list[int] = distinct(columns.rows["identity"]).tolist()
        known = {number: reserved_labels(Reserved.HEALTH) for number in numbers if number == Reserved.HEALTH}
        ours = [number for number in numbers if number >> CLUSTER_SHIFT == self._id and number not in known]
        if len(ours) + len(known) < len(numbers):
            log.warning(
                "cluster %s has identities of another cluster's id than %d: they are not believed",
                self._cluster,
                self._id,
            )
        self._labelled = False  # nor are they where this raises: it is tried again
        self._labels = {**known, **self.identities.labels_of(ours)}
        self._labelled = len(self._labels) == len(known) + len(ours)
        self._columns = columns.of_identities(self._labels) if len(self._labels) < len(numbers) else columns
        return self._columns, self._labels
