"""What was given to nodes that the cluster no longer has: their CIDRs, their workloads' addresses, their last results.

A node is gone when no manifest names it and the store has not heard of it: a host that is only silent keeps everything.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import quote

from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import Store, root
from reconciler.store.registrations import node_key
from reconciler.store.reports import last_pushed, reports, reports_prefix, retract

log = logging.getLogger(__name__)


def give_back(store: Store, cluster: str, node: str) -> int:
    """How many keys that were; nothing of a node that is registered. Raises StoreError."""
    if store.get(node_key(cluster, node)) is not None:
        return 0
    keys = [item.key for item in store.range(f"{root(cluster)}addresses/{quote(node, safe='')}/").items]
    found = sum(map(store.delete, keys))
    cidrs = NodeCidrs(store, (), cluster)
    found += node in cidrs.held()
    cidrs.release([node])
    found += store.get(reports_prefix(cluster) + quote(node, safe="")) is not None
    retract(store, cluster, node)
    return found


class Gone:
    """Of nodes that are gone at two looks one after the other: one that is new claims before it registers."""

    def __init__(self) -> None:
        self._before: set[str] = set()

    def collect(self, store: Store, cluster: str, commit: str, nodes: Collection[str]) -> None:
        """`nodes`: those of `commit`, which must be the newest: a later one may have others. Raises StoreError."""
        pushed = last_pushed(store, cluster)
        if pushed is not None and pushed.commit != commit:
            self._before = set()
            return
        there = NodeCidrs(store, (), cluster).held().keys() | reports(store, cluster)[0].keys()
        gone = {name for name in there - set(nodes) if store.get(node_key(cluster, name)) is None}
        for node in sorted(gone & self._before):
            log.info("given back node=%s keys=%d", node, give_back(store, cluster, node))
        self._before = gone
