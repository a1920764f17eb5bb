"""What this host knows besides the commit: who has which identity and which address.

Allocating writes to the store, so a plan that is only shown works on an overlay of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from reconciler.errors import CompileError
from reconciler.host.names import device_names, workload_mac
from reconciler.host.others import NOBODY, Others
from reconciler.kernel.host_addresses import devices_of
from reconciler.model.cluster import DirectReturn, Node, StoreKind, Workload
from reconciler.model.facts import Endpoint, Facts, Peer, is_foreign
from reconciler.model.health import is_health
from reconciler.model.identity import FIRST_CLUSTER, Reserved, reserved_labels
from reconciler.model.labels import LabelSet, workload_labels
from reconciler.model.overlay import reserved
from reconciler.model.snapshot import Snapshot
from reconciler.store.addresses import Addresses
from reconciler.store.identities import Identities
from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import Store

_HEALTH = reserved_labels(Reserved.HEALTH)

Addressed = Mapping[str, tuple[IPv4Address | None, IPv6Address | None]]


def this_node(snapshot: Snapshot, name: str) -> Node:
    if name in snapshot.nodes:
        return snapshot.nodes[name]
    there = ", ".join(sorted(snapshot.nodes)) or "none"
    raise CompileError(
        f"the commit has no Node {name!r}; it has {there}",
        remedy="add its manifest, or set `node` in this host's configuration",
    )


def placed(snapshot: Snapshot, node: str, store: Store) -> Snapshot:
    """The commit with this node's CIDRs: those of the cluster's pools where its manifest gives none.

    Raises CompileError if another node has one of them, or a pool is used up.
    """
    here = this_node(snapshot, node)
    elsewhere = {name: _networks(other) for name, other in snapshot.nodes.items()}
    cidrs = NodeCidrs(store, snapshot.cluster.pools, snapshot.cluster.name)
    cidr4, cidr6 = cidrs.allocate(node, (here.cidr4, here.cidr6), elsewhere)
    if (cidr4, cidr6) == (here.cidr4, here.cidr6):
        return snapshot
    return replace(snapshot, nodes={**snapshot.nodes, node: replace(here, cidr4=cidr4, cidr6=cidr6)})


def _networks(node: Node) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(cidr for cidr in (node.cidr4, node.cidr6) if cidr is not None)


def gather(
    snapshot: Snapshot,
    node: str,
    store: Store,
    host_addresses: frozenset[IPv4Address | IPv6Address],
    identities: Identities | None = None,
    others: Others = NOBODY,
    host_networks: frozenset[IPv4Network | IPv6Network] = frozenset(),
    told: Collection[str] = (),
) -> Facts:
    """Identities and addresses for this node's workloads, and what is known of others. `told`: workloads of other nodes
    of which their manifests are to be believed.

    Raises CompileError if the commit does not know the node, StoreError if a range is exhausted.
    """
    here = this_node(snapshot, node)
    allocator = identities or Identities(store, snapshot.cluster.id, snapshot.cluster.name)
    taking_part = {
        ref: one
        for ref, one in snapshot.workloads.items()
        if one.node == node or ref in told or _is_told(one, snapshot, others)
    }
    labels = {reference: labels_of(snapshot, workload) for reference, workload in taking_part.items()}
    numbers = {_HEALTH: int(Reserved.HEALTH), **allocator.allocate(set(labels.values()) - {_HEALTH})}
    addressed = _addresses(snapshot, here, store)
    ifnames = device_names(reference for reference, workload in taking_part.items() if workload.node == node)
    endpoints = {}
    for reference, workload in taking_part.items():
        address4, address6 = addressed.get(reference, (workload.address4, workload.address6))
        endpoints[reference] = Endpoint(
            reference=reference,
            node=workload.node,
            identity=numbers[labels[reference]],
            ifname=ifnames.get(reference, ""),
            address4=address4,
            address6=address6,
            mac=workload_mac(snapshot.cluster.name, reference) if reference in ifnames else "",
        )
    named: dict[int, LabelSet] = {int(one): reserved_labels(one) for one in Reserved if one}
    named |= {**others.labels, **{number: one for one, number in numbers.items()}}
    return Facts(
        node,
        named,
        endpoints,
        host_addresses,
        peers=_peers(snapshot, node, others),
        remote=others.remote,
        underlay=_underlay(here),
        host_networks=host_networks,
    )


def _is_told(workload: Workload, snapshot: Snapshot, others: Others) -> bool:
    """Whether all that is known of another node's workload is its manifest: the store of a single host."""
    return _is_alone(snapshot) and workload.node not in others.registered


def _is_alone(snapshot: Snapshot) -> bool:
    """Whether no other host of the cluster can say anything: what its manifest says has to do."""
    return snapshot.cluster.store.kind is StoreKind.EMBEDDED


def heard(snapshot: Snapshot, facts: Facts, others: Others) -> Facts:
    """The facts with what others say now; the same object where that is nothing new. Writes nothing."""
    peers = _peers(snapshot, facts.node, others)
    gone = {
        reference
        for reference, endpoint in facts.endpoints.items()
        if endpoint.node != facts.node and not _is_told(snapshot.workloads[reference], snapshot, others)
    }
    if others.remote is facts.remote and peers == facts.peers and not gone:
        return facts
    endpoints = {reference: one for reference, one in facts.endpoints.items() if reference not in gone}
    own = {endpoint.identity for endpoint in endpoints.values()}
    kept = {number: labels for number, labels in facts.identities.items() if number in own or number < FIRST_CLUSTER}
    return replace(
        facts,
        identities={**others.labels, **kept},
        endpoints=endpoints if gone else facts.endpoints,
        peers=peers,
        remote=others.remote,
    )


def _underlay(node: Node) -> dict[int, str]:
    own = [address for address in (node.address4, node.address6) if address is not None]
    return {address.version: device for address, device in devices_of(own).items()}


def _peers(snapshot: Snapshot, node: str, others: Others) -> dict[str, Peer]:
    """Other nodes as their manifests describe them, and as they say themselves where those are silent.

    No manifest here tells of nodes of joined clusters: what they claimed stays theirs while they are silent.
    """
    peers = {}
    unsaid = (snapshot.cluster.direct_return if _is_alone(snapshot) else DirectReturn.NONE).value
    foreign = {name for name in others.cidrs if is_foreign(name)}
    for name in sorted((snapshot.nodes.keys() | others.registered.keys() | foreign) - {node}):
        manifest, said = snapshot.nodes.get(name), others.registered.get(name)
        given4, given6 = others.cidrs.get(name, (None, None))
        peers[name] = Peer(
            name,
            manifest.origin if manifest else said.origin if said else snapshot.cluster.origin,
            _first(manifest and manifest.address4, said and said.address(4)),
            _first(manifest and manifest.address6, said and said.address(6)),
            _first(manifest and manifest.cidr4, said and said.cidr(4), given4),
            _first(manifest and manifest.cidr6, said and said.cidr(6), given6),
            said.direct_return if said else unsaid,
        )
    return peers


def _first(*known: Any) -> Any:
    return next((one for one in known if one is not None), None)


def labels_of(snapshot: Snapshot, workload: Workload) -> LabelSet:
    if is_health(workload):
        return _HEALTH
    namespace = snapshot.namespaces.get(workload.namespace)
    around, cluster = namespace.labels if namespace else {}, snapshot.cluster
    return workload_labels(workload.namespace, workload.labels, around, cluster.name, cluster.identity_labels)


def _addresses(snapshot: Snapshot, node: Node, store: Store) -> Addressed:
    mine = [workload for workload in snapshot.workloads.values() if workload.node == node.name]
    fixed = {
        workload.reference: (workload.address4, workload.address6)
        for workload in mine
        if workload.address4 is not None or workload.address6 is not None
    }
    allocator = _allocator(snapshot, node, store)
    given = allocator.allocate([workload.reference for workload in mine if not is_health(workload)], fixed)
    return {**given, **_of_health([workload.reference for workload in mine if is_health(workload)], allocator)}


def _of_health(references: list[str], allocator: Addresses) -> Addressed:
    """After all workloads: it makes room for those that ask for its address, and goes without where none is left."""
    try:
        return allocator.allocate(references) if references else {}
    except CompileError:
        return dict.fromkeys(references, (None, None))


def _allocator(snapshot: Snapshot, node: Node, store: Store) -> Addresses:
    own = [address for address in (node.address4, node.address6) if address is not None]
    own += reserved(snapshot.cluster, node)
    return Addresses(store, node.name, node.cidr4, node.cidr6, cluster=snapshot.cluster.name, excluded=own)


def release_gone(snapshot: Snapshot, node: str, store: Store) -> None:
    """Gives back the addresses of workloads that the commit no longer has on this node."""
    allocator = _allocator(snapshot, this_node(snapshot, node), store)
    there = {reference for reference, workload in snapshot.workloads.items() if workload.node == node}
    gone = set(allocator.held().values()) - there
    if gone:
        allocator.release(gone)


def identity_count(snapshot: Snapshot) -> int:
    """How many label sets, and so identities, all workloads of a commit have."""
    return len({labels_of(snapshot, workload) for workload in snapshot.workloads.values()})
