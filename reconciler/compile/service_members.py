"""Workloads that selectors of services find, across the cluster.

Workloads with the same labels have the same identity, so a selector finds identities, by an inverted index of labels,
and each identity has its members. Both are kept while what they were made from is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.service_direct import Taking, taking_nodes
from reconciler.model.balancing import address_of
from reconciler.model.cluster import NamedPort, Workload
from reconciler.model.facts import NO_REMOTE, Facts, RemoteEndpoints
from reconciler.model.identity import FIRST_CLUSTER
from reconciler.model.labels import CLUSTER_KEY, NAMESPACE_KEY, Label, LabelSet
from reconciler.model.service import Address, Service
from reconciler.model.snapshot import Snapshot

_SOURCE = "k8s"
_NONE: frozenset[int] = frozenset()


class Member(NamedTuple):
    """A workload. `name` is `namespace/name`; `local`: of this host.

    `direct`: of another node, which takes what is brought to it over these IP versions: it may answer clients outside
    from there.
    """

    name: str
    addresses: tuple[Address, ...]
    local: bool
    ports: frozenset[NamedPort]
    weight: int
    direct: frozenset[int] = _NONE

    def port(self, name: str, protocol: int) -> int:
        """The number of a named port; 0 if it has none of this name."""
        return next((one.port for one in self.ports if (one.name, one.protocol) == (name, protocol)), 0)


class ServiceMembers:
    """Remembers the last commit and facts."""

    def __init__(self) -> None:
        self._identities: Mapping[int, LabelSet] = {}
        self._cluster = ""
        self._having: dict[Label, set[int]] = {}
        self._own: dict[int, tuple[Member, ...]] = {}
        self._remote: RemoteEndpoints = NO_REMOTE
        self._rows_of: dict[int, NDArray[np.intp]] = {}
        self._members: dict[int, tuple[Member, ...]] = {}
        self._workloads: Mapping[str, Workload] = {}
        self._taking: Taking = {}

    def take(self, snapshot: Snapshot, facts: Facts) -> None:
        """O(workloads of this host), and O(all) where identities or endpoints of other hosts changed."""
        if self._identities != facts.identities or self._cluster != snapshot.cluster.name:
            self._index(facts.identities, snapshot.cluster.name)
        if self._remote is not facts.remote:
            self._remote = facts.remote
            self._rows_of = _by_identity(facts.remote)
        before, self._members = self._members, {}
        self._workloads = snapshot.workloads
        self._taking = taking_nodes(snapshot, facts)
        self._own = _own(snapshot, facts, self._taking)
        for identity, known in before.items():  # an equal tuple stays the same object, which is quick to compare
            now = self._found(identity)
            self._members[identity] = known if known == now else now

    def of(self, service: Service) -> tuple[tuple[Member, ...], ...]:
        """The members of each identity that it selects; nobody without a selector. The same objects while they last."""
        if not service.selector:
            return ()
        wanted = [Label(_SOURCE, key, value) for key, value in service.selector.items()]
        wanted += [Label(_SOURCE, NAMESPACE_KEY, service.namespace), Label(_SOURCE, CLUSTER_KEY, self._cluster)]
        having = sorted((self._having.get(label, set()) for label in wanted), key=len)
        identities = having[0].intersection(*having[1:])
        return tuple(found for identity in sorted(identities) if (found := self._of_identity(identity)))

    def _index(self, identities: Mapping[int, LabelSet], cluster: str) -> None:
        self._identities, self._cluster = identities, cluster
        having: defaultdict[Label, set[int]] = defaultdict(set)
        for identity, labels in identities.items():
            if identity >= FIRST_CLUSTER:
                for label in labels:
                    having[label].add(identity)
        self._having = dict(having)

    def _of_identity(self, identity: int) -> tuple[Member, ...]:
        if identity not in self._members:
            self._members[identity] = self._found(identity)
        return self._members[identity]

    def _found(self, identity: int) -> tuple[Member, ...]:
        own = self._own.get(identity, ())
        rows = self._rows_of.get(identity)
        if rows is None:
            return own
        known = {member.name for member in own}
        return own + tuple(member for member in self._told(rows) if member.name not in known)

    def _told(self, rows: NDArray[np.intp]) -> list[Member]:
        """Members that these rows of `Facts.remote` tell of, one for each endpoint."""
        remote, addresses = self._remote, defaultdict[int, list[Address]](list)
        ports: dict[int, frozenset[NamedPort]] = {}
        for row in remote.rows[rows]:
            endpoint = int(row["endpoint"])
            addresses[endpoint].append(address_of(int(row["high"]), int(row["low"])))
            ports[endpoint] = remote.ports[row["ports"]]
        return [self._elsewhere(one, tuple(addresses[one]), ports[one]) for one in addresses]

    def _elsewhere(self, endpoint: int, addresses: tuple[Address, ...], ports: frozenset[NamedPort]) -> Member:
        name, node = self._remote.names[endpoint], self._remote.nodes[endpoint]
        workload = self._workloads.get(name)
        direct = self._taking.get(node, _NONE)
        return Member(name, addresses, False, ports, workload.weight if workload else 1, direct)


def _own(snapshot: Snapshot, facts: Facts, taking: Taking) -> dict[int, tuple[Member, ...]]:
    """Of this host, and of others that only manifests tell of."""
    found: defaultdict[int, list[Member]] = defaultdict(list)
    for name, endpoint in facts.endpoints.items():
        workload = snapshot.workloads.get(name)
        if workload is not None:
            addresses = tuple(one for one in (endpoint.address4, endpoint.address6) if one is not None)
            local, direct = endpoint.node == facts.node, taking.get(endpoint.node, _NONE)
            member = Member(name, addresses, local, frozenset(workload.ports), workload.weight, direct)
            found[endpoint.identity].append(member)
    return {identity: tuple(members) for identity, members in found.items()}


def _by_identity(remote: RemoteEndpoints) -> dict[int, NDArray[np.intp]]:
    """identity -> indexes of its rows."""
    order = np.argsort(remote.rows["identity"], kind="stable")
    identities, starts = np.unique(remote.rows["identity"][order], return_index=True)
    return dict(zip(identities.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}
