"""What another node knows of all the others, as far as this host knows it: what they announced, what manifests say.

A workload that a commit adds is announced by nobody yet, and one that it removes is still announced: the commit decides
who is there, and announcements which addresses they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from reconciler.engine.distinct import distinct
from reconciler.host.others import Others
from reconciler.model.facts import Endpoint, Facts, is_foreign
from reconciler.model.snapshot import Snapshot


class KnownElsewhere:
    """By the facts of this host."""

    def __init__(self, facts: Facts) -> None:
        self._facts, self._remote = facts, facts.remote
        self._announced = dict(zip(facts.remote.names, facts.remote.nodes, strict=True))

    def others(self, snapshot: Snapshot, node: str) -> Others:
        """What was announced of workloads that the commit has on other nodes, and of all in joined clusters."""
        there = [
            is_foreign(of) or (of != node and name in snapshot.workloads and snapshot.workloads[name].node == of)
            for name, of in zip(self._remote.names, self._remote.nodes, strict=True)
        ]
        rows = self._remote.rows
        rows = rows[np.array(there, np.bool_)[rows["endpoint"]]] if len(rows) else rows
        known = self._facts.identities
        labels = {number: known[number] for number in distinct(rows["identity"]).tolist() if number in known}
        return Others(remote=replace(self._remote, rows=rows), labels=labels)

    def told(self, snapshot: Snapshot, node: str) -> frozenset[str]:
        """Workloads of other nodes that nobody announced to this host: its own, and those that are new."""
        return frozenset(
            name
            for name, one in snapshot.workloads.items()
            if one.node != node and self._announced.get(name) != one.node
        )

    def with_own_addresses(self, endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """With the addresses that this host gave out."""
        return {name: self._addressed(name, one) for name, one in endpoints.items()}

    def _addressed(self, name: str, endpoint: Endpoint) -> Endpoint:
        own = self._facts.endpoints.get(name)
        if own is None or not own.node == endpoint.node == self._facts.node:
            return endpoint
        return replace(endpoint, address4=own.address4, address6=own.address6)
