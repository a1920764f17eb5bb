"""The endpoint of each node that the others probe: a namespace of our own, connected and judged as a workload is.

No manifest says it, so it is put beside a commit's workloads, with a name that none of these can have.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.cluster import Node, Workload
from reconciler.model.snapshot import Snapshot

NAMESPACE = "reserved:health"


def is_health(workload: Workload) -> bool:
    return workload.namespace == NAMESPACE


def with_health(snapshot: Snapshot, node: Node, netns: str) -> Snapshot:
    """The commit with the node's health endpoint, where there are others to probe it and an address for it."""
    if not snapshot.cluster.health.interval_s or len(snapshot.nodes) < 2 or not (node.cidr4 or node.cidr6):
        return snapshot
    endpoint = Workload(NAMESPACE, node.name, node.name, node.origin, netns)
    return replace(snapshot, workloads={**snapshot.workloads, endpoint.reference: endpoint})


def without_health(snapshot: Snapshot) -> Snapshot:
    """The commit as its manifests say it."""
    workloads = {key: one for key, one in snapshot.workloads.items() if not is_health(one)}
    return replace(snapshot, workloads=workloads) if len(workloads) < len(snapshot.workloads) else snapshot
