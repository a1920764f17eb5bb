"""What follows from a cluster's overlay: device, port, MTU, and the address that a host has among workloads."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.model.cluster import Cluster, Network, NetworkMode, Node
from reconciler.model.facts import Peer

DEVICES = {NetworkMode.VXLAN: "plumb_vxlan", NetworkMode.GENEVE: "plumb_geneve"}
KINDS = {NetworkMode.VXLAN: "vxlan", NetworkMode.GENEVE: "ifb"}
PORTS = {NetworkMode.VXLAN: 8472, NetworkMode.GENEVE: 6081}
UNDERLAY_MTU = 1500
# Outer IP header, UDP (8 bytes), VXLAN or Geneve without options (8), inner Ethernet (14)
WRAPPING = {4: 20 + 30, 6: 40 + 30}


def port(network: Network) -> int:
    """UDP port of wrapped packets; 0 where there are none."""
    return (network.port or PORTS[network.mode]) if network.is_overlay else 0


def direct_port(network: Network) -> int:
    """UDP port of packets that are wrapped in Geneve for a backend whose host answers directly."""
    return port(network) if network.mode is NetworkMode.GENEVE else PORTS[NetworkMode.GENEVE]


def mtu_bytes(cluster: Cluster, node: Node) -> int:
    """Of workloads' interfaces and of the overlay device."""
    if cluster.mtu_bytes:
        return cluster.mtu_bytes
    if not cluster.network.is_overlay:
        return UNDERLAY_MTU
    over6 = cluster.network.underlay == 6 or (not cluster.network.underlay and node.address4 is None)
    return UNDERLAY_MTU - WRAPPING[6 if over6 else 4]


def router(cidr: IPv4Network | IPv6Network) -> IPv4Address | IPv6Address | None:
    """The first address of a node's CIDR that can be used; None if it is too small to spare one."""
    return cidr[1] if cidr.num_addresses > 2 else None


def reserved(cluster: Cluster, node: Node | Peer) -> tuple[IPv4Address | IPv6Address, ...]:
    """Addresses of the node's CIDRs that no workload gets."""
    found = (router(cidr) for cidr in (node.cidr4, node.cidr6) if cidr is not None)
    return tuple(one for one in found if one is not None) if cluster.network.is_overlay else ()
