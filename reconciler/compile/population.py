"""Everybody whom the rules of a commit can mean, as one index: workloads, what is reserved, and CIDRs.

Numbers are made up here: no store is asked. Workloads are one identity for each label set. Which addresses they will
get is not known, so the workloads inside an ipBlock are an identity of their own beside those of their labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import count

from reconciler.compile.backends import NO_BACKENDS, Backends
from reconciler.compile.entries import Entries
from reconciler.compile.identities import asked
from reconciler.compile.members import PortName
from reconciler.compile.networks import CIDR_SOURCE, IpNetwork, networks
from reconciler.compile.selectors import IPBLOCK_SOURCE, LabelIndex
from reconciler.model.cluster import Workload
from reconciler.model.identity import FIRST_CLUSTER, Reserved, reserved_labels
from reconciler.model.labels import Label, LabelSet, workload_labels
from reconciler.model.policy import Peer, ServicePeer
from reconciler.model.selector import Selector
from reconciler.model.snapshot import Snapshot

_RESERVED = {int(kind): reserved_labels(kind) for kind in Reserved if kind is not Reserved.UNKNOWN}
_BLOCKS = 1 << 25  # added to the number of a CIDR (those are below it): the workloads inside
_Groups = Mapping[LabelSet, list[Workload]]


class Population:
    """Takes up one commit after another; what did not change between them is not worked out again.

    Labels, selectors and lists of peers are known again by their identity as objects: a document that did not change
    has the same ones at every commit.
    """

    def __init__(self) -> None:
        self.index = LabelIndex()
        self.backends = NO_BACKENDS
        self.workloads = 0  # bitmap
        self._named: dict[PortName, int] = {}
        self._next = count(FIRST_CLUSTER)
        self._numbers: dict[LabelSet, int] = {}
        self._taken: tuple[object, ...] = ()
        self._groups: _Groups = {}
        self._cidrs: tuple[frozenset[IpNetwork], dict[int, LabelSet]] = (frozenset(), {})
        self._labels: dict[int, LabelSet] = {}
        self._known: dict[int, tuple[object, int]] = {}  # id of a selector or of peers -> it, and its bitmap
        self._before: dict[int, tuple[object, int]] = {}

    def take(self, snapshot: Snapshot) -> None:
        """O(workloads + entries of rules)."""
        self.backends = Backends(snapshot.services, snapshot.slices)
        if not self._is_same(snapshot):
            self._groups = _grouped(snapshot)
            self._numbers = {one: self._numbers.get(one) or next(self._next) for one in self._groups}
        wanted = asked(snapshot.rules, self.backends)
        others = _RESERVED | self._networks(frozenset(wanted.networks))
        labels = others | {number: one for one, number in self._numbers.items()}
        self._before, self._known = self._known if labels == self._labels else {}, {}
        self._labels = labels
        self.index.update(labels)
        self.workloads = self.index.everyone & ~sum(map(self.index.bit, others))
        self._named = self._ports(wanted.names)

    def subjects(self, selector: Selector) -> int:
        """Bitmap of the workloads that a selector selects."""
        return self.select(selector) & self.workloads

    def select(self, selector: Selector) -> int:
        known = self._recall(selector)
        return self._keep(selector, self.index.select(selector)) if known is None else known

    def peers(self, peers: tuple[Peer, ...] | None) -> int:
        """Bitmap of everybody that the peers of an entry mean."""
        if peers is None:
            return self.index.everyone
        known = self._recall(peers)
        if known is not None:
            return known
        found = Entries(self.index, {}, self.backends).union(peers)
        bits = self.index.everyone if found is None else found
        changing = any(isinstance(peer, ServicePeer) for peer in peers)
        return bits if changing else self._keep(peers, bits)

    def having(self, name: str, protocol: int) -> int:
        """Bitmap of the workloads that have a port of this name."""
        return self._named.get((name, protocol), 0)

    def _recall(self, what: object) -> int | None:
        known = self._known.get(id(what))
        if known is None and (known := self._before.get(id(what))) is not None:
            self._known[id(what)] = known
        return None if known is None else known[1]

    def _keep(self, what: object, bits: int) -> int:
        self._known[id(what)] = (what, bits)
        return bits

    def _is_same(self, snapshot: Snapshot) -> bool:
        """Whether the workloads are those of the commit before, with the same labels and ports."""
        workloads = snapshot.workloads.values()
        now = (
            [id(one.labels) for one in workloads],
            [id(one.ports) for one in workloads],
            [one.namespace for one in workloads],
            {name: namespace.labels for name, namespace in snapshot.namespaces.items()},
            snapshot.cluster.name,
            snapshot.cluster.identity_labels,
        )
        same = self._taken[:-1] == now
        self._taken = (*now, snapshot.workloads)  # which keeps the objects, and so their ids
        return same

    def _networks(self, named: frozenset[IpNetwork]) -> dict[int, LabelSet]:
        """Of CIDRs, and of the workloads inside each."""
        if not self._cidrs[1] or self._cidrs[0] != named:
            outside = networks(named).labels
            blocks = {number + _BLOCKS: _block(labels) for number, labels in outside.items()}
            self._cidrs = (named, {**outside, **blocks})
        return self._cidrs[1]

    def _ports(self, wanted: frozenset[PortName]) -> dict[PortName, int]:
        found: defaultdict[PortName, int] = defaultdict(int)
        for labels, workloads in self._groups.items() if wanted else ():
            names = {(port.name, port.protocol) for workload in workloads for port in workload.ports}
            for name in names & wanted:
                found[name] |= self.index.bit(self._numbers[labels])
        return found


def _grouped(snapshot: Snapshot) -> _Groups:
    groups: defaultdict[LabelSet, list[Workload]] = defaultdict(list)
    for workload in snapshot.workloads.values():
        namespace = snapshot.namespaces.get(workload.namespace)
        around = namespace.labels if namespace else {}
        labels = workload_labels(
            workload.namespace, workload.labels, around, snapshot.cluster.name, snapshot.cluster.identity_labels
        )
        groups[labels].append(workload)
    return groups


def _block(labels: LabelSet) -> LabelSet:
    return frozenset(Label(IPBLOCK_SOURCE, label.key) for label in labels if label.source == CIDR_SOURCE)
