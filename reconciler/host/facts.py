"""What this host knows besides the commit: who has which identity and which address.

Allocating writes to the store, so a plan that is only shown works on an overlay of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from reconciler.errors import CompileError
from reconciler.host.names import device_names, workload_mac
from reconciler.kernel.host_addresses import devices_of
from reconciler.model.cluster import Node, Workload
from reconciler.model.facts import Endpoint, Facts, Peer
from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.labels import LabelSet, workload_labels
from reconciler.model.overlay import reserved
from reconciler.model.snapshot import Snapshot
from reconciler.store.addresses import Addresses
from reconciler.store.identities import Identities
from reconciler.store.protocol import Store

Addressed = Mapping[str, tuple[IPv4Address | None, IPv6Address | None]]


def this_node(snapshot: Snapshot, name: str) -> Node:
    if name in snapshot.nodes:
        return snapshot.nodes[name]
    there = ", ".join(sorted(snapshot.nodes)) or "none"
    raise CompileError(
        f"the commit has no Node {name!r}; it has {there}",
        remedy="add its manifest, or set `node` in this host's configuration",
    )


def gather(
    snapshot: Snapshot,
    node: str,
    store: Store,
    host_addresses: frozenset[IPv4Address | IPv6Address],
    identities: Identities | None = None,
) -> Facts:
    """Identities for every label set of the commit, addresses for this node's workloads.

    Raises CompileError if the commit does not know the node, StoreError if a range is exhausted.
    """
    here = this_node(snapshot, node)
    labels = {reference: labels_of(snapshot, workload) for reference, workload in snapshot.workloads.items()}
    allocator = identities or Identities(store, snapshot.cluster.id, snapshot.cluster.name)
    numbers = allocator.allocate(labels.values())
    addressed = _addresses(snapshot, here, store)
    ifnames = device_names(reference for reference, workload in snapshot.workloads.items() if workload.node == node)
    endpoints = {}
    for reference, workload in snapshot.workloads.items():
        address4, address6 = addressed.get(reference, (workload.address4, workload.address6))
        endpoints[reference] = Endpoint(
            reference=reference,
            node=workload.node,
            identity=numbers[labels[reference]],
            ifname=ifnames.get(reference, ""),
            address4=address4,
            address6=address6,
            mac=workload_mac(snapshot.cluster.name, reference),
        )
    named: dict[int, LabelSet] = {int(one): reserved_labels(one) for one in Reserved if one}
    named.update({numbers[one]: one for one in labels.values()})
    return Facts(node, named, endpoints, host_addresses, peers=_peers(snapshot, node), underlay=_underlay(here))


def _underlay(node: Node) -> dict[int, str]:
    own = [address for address in (node.address4, node.address6) if address is not None]
    return {address.version: device for address, device in devices_of(own).items()}


def _peers(snapshot: Snapshot, node: str) -> dict[str, Peer]:
    """Other nodes as their manifests describe them."""
    return {
        name: Peer(name, other.origin, other.address4, other.address6, other.cidr4, other.cidr6)
        for name, other in snapshot.nodes.items()
        if name != node
    }


def labels_of(snapshot: Snapshot, workload: Workload) -> LabelSet:
    namespace = snapshot.namespaces.get(workload.namespace)
    return workload_labels(
        workload.namespace, workload.labels, namespace.labels if namespace else {}, snapshot.cluster.name
    )


def _addresses(snapshot: Snapshot, node: Node, store: Store) -> Addressed:
    mine = [workload for workload in snapshot.workloads.values() if workload.node == node.name]
    fixed = {
        workload.reference: (workload.address4, workload.address6)
        for workload in mine
        if workload.address4 is not None or workload.address6 is not None
    }
    allocator = _allocator(snapshot, node, store)
    return allocator.allocate([workload.reference for workload in mine], fixed)


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
