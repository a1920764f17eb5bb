"""The Cluster's ranges of ports: what node ports, masquerading and tunnels use is each one's alone.

A node port that a tunnel has, too, would take the packets of other nodes away from it; one that masquerading has, the
answers to workloads.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model import overlay
from reconciler.model.cluster import Cluster, DirectReturn
from reconciler.source.node import Findings, Node


def check(spec: Node, cluster: Cluster, findings: Findings) -> None:
    """Faults at `services.nodePorts`, or at `services` where the range is the default."""
    services, masquerade = cluster.services, cluster.masquerade
    node = spec.get("services")
    if services is None or node is None:
        return
    first, last = services.first_node_port, services.last_node_port
    place, named = node.key_place("nodePorts"), f"services.nodePorts {first}-{last}"
    if max(first, masquerade.first_port) <= min(last, masquerade.last_port):
        theirs = f"masquerade.ports {masquerade.first_port}-{masquerade.last_port}"
        findings.fault(place, f"{named} overlap {theirs}: no port may be in both")
    for port, whose in dict(_tunnels(cluster)).items():
        if first <= port <= last:
            findings.fault(
                place, f"{named} hold UDP port {port}, which is that of {whose}: a range without it is allowed"
            )


def _tunnels(cluster: Cluster) -> Iterator[tuple[int, str]]:
    if cluster.services is not None and cluster.services.direct_return is DirectReturn.GENEVE:
        yield overlay.direct_port(cluster.network), "directReturn: geneve"
    if cluster.network.is_overlay:
        yield overlay.port(cluster.network), f"network.mode: {cluster.network.mode.value}"
