"""How packets get from this host to the workloads of other nodes: wrapped, by routes over the nodes, or by others.

In an overlay the host itself has an address among workloads, the first of its CIDR: what it sends to workloads of
other nodes comes from there. Whatever the mode, an address of this node's CIDR that no workload has leads nowhere, so
that a packet for it does not go out again to whoever sent it here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface, ip_network
from typing import TypeVar

from reconciler.compile.routes import MAIN_TABLE
from reconciler.compile.tables import AskedRow
from reconciler.errors import CompileError
from reconciler.model.cluster import Cluster, Node
from reconciler.model.datapath import AttachmentKey, AttachmentRow, Hook, TunnelRow
from reconciler.model.facts import Facts, Peer
from reconciler.model.network import (
    HOST_NETNS,
    Address,
    AddressKey,
    Carrier,
    OverlayDevice,
    Route,
    RouteKey,
    Sysctl,
    SysctlKey,
)
from reconciler.model.outside import DeviceFlag, DeviceRow
from reconciler.model.overlay import DEVICES, KINDS, mtu_bytes, port, router
from reconciler.model.snapshot import Warning

PROGRAMS = {Hook.INGRESS: "from_overlay", Hook.EGRESS: "to_overlay"}
LAST_RESORT = 1 << 16  # metric: any other route to a node's CIDR wins
UNREACHABLE = Route("", kind="unreachable")
SYSCTLS = {
    4: {"net/ipv4/conf/{}/forwarding": "1", "net/ipv4/conf/{}/rp_filter": "0"},
    6: {
        "net/ipv6/conf/{}/accept_ra": "0",
        "net/ipv6/conf/{}/addr_gen_mode": "1",  # IN6_ADDR_GEN_MODE_NONE
        "net/ipv6/conf/{}/forwarding": "1",
    },
}

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network
T = TypeVar("T")


def underlay_rows(cluster: Cluster, node: Node, facts: Facts, programs: Mapping[str, str]) -> Iterator[AskedRow]:
    """`programs`: name -> digest.

    Raises CompileError where no packet could get to a peer of this cluster, or one of a joined cluster has its CIDR.
    """
    for cidr in cidrs(node):
        yield AskedRow("routes", RouteKey(HOST_NETNS, cidr, MAIN_TABLE, LAST_RESORT), UNREACHABLE, node.origin)
    if cluster.network.is_overlay:
        yield from _device(cluster, node, programs)
        yield from _tunnels(cluster, node, facts)
    elif cluster.network.direct_routes:
        yield from _direct_routes(facts)


def cidrs(node: Node | Peer) -> list[IpNetwork]:
    return [cidr for cidr in (node.cidr4, node.cidr6) if cidr is not None]


def _device(cluster: Cluster, node: Node, programs: Mapping[str, str]) -> Iterator[AskedRow]:
    name, origin = DEVICES[cluster.network.mode], cluster.origin
    kind = KINDS[cluster.network.mode]
    served = port(cluster.network) if kind == "vxlan" else 0
    row = OverlayDevice(kind, _mac(cluster, node), mtu_bytes(cluster, node), served)
    yield AskedRow("overlays", name, row, origin)
    yield AskedRow("carriers", name, Carrier(), origin)
    if cluster.services is not None:
        own = {cidr.version: router(cidr) for cidr in cidrs(node)}
        yield AskedRow("devices", name, DeviceRow(DeviceFlag.SERVICES, _four(own.get(4)), _six(own.get(6))), origin)
    for hook, program in PROGRAMS.items():
        if program not in programs:
            raise CompileError(f"the program {program} is not built")
        attached = AttachmentRow(program, programs[program])
        yield AskedRow("attachments", AttachmentKey(name, hook), attached, origin)
    for cidr in cidrs(node):
        for sysctl, value in SYSCTLS[cidr.version].items():
            yield AskedRow("sysctls", SysctlKey(HOST_NETNS, sysctl.format(name)), Sysctl(value), origin)
        if address := router(cidr):
            yield AskedRow("addresses", AddressKey(HOST_NETNS, name, ip_interface(address)), Address(), node.origin)


def _four(address: IpAddress | None) -> IPv4Address | None:
    return address if isinstance(address, IPv4Address) else None


def _six(address: IpAddress | None) -> IPv6Address | None:
    return address if isinstance(address, IPv6Address) else None


def _mac(cluster: Cluster, node: Node) -> str:
    """Another one on each node, as a device drops frames that come from its own address."""
    digest = hashlib.sha256(f"{cluster.name}/{node.name}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x06, *digest[:5]))


def _tunnels(cluster: Cluster, node: Node, facts: Facts) -> Iterator[AskedRow]:
    for family in _outer_families(cluster, node, facts):
        # The loopback's: routes are looked up as if from there.
        sysctl = SysctlKey(HOST_NETNS, f"net/ipv{family}/conf/lo/forwarding")
        yield AskedRow("sysctls", sysctl, Sysctl("1"), cluster.origin)
    name, own = DEVICES[cluster.network.mode], {cidr.version: router(cidr) for cidr in cidrs(node)}
    local = node.address4 if node.address4 is not None and cluster.network.underlay != 6 else node.address6
    for address in own.values():
        if address is not None and local is not None:
            yield AskedRow("tunnels", ip_network(address), TunnelRow(name, local, local, cluster.id), node.origin)
    holders: dict[IpNetwork, Peer] = {}
    for peer in facts.peers.values():
        ends = _reached(partial(_ends, cluster.network.underlay, node, peer), peer)
        if ends is None:
            yield from _nowhere(peer)
            continue
        for cidr in cidrs(peer):
            _check_clusters(cidr, peer, holders.setdefault(cidr, peer))
            yield AskedRow("tunnels", cidr, TunnelRow(name, *ends, _cluster_id(cluster, peer)), peer.origin)
            if source := own.get(cidr.version):
                route = Route(name, source=source)
                yield AskedRow("routes", RouteKey(HOST_NETNS, cidr, MAIN_TABLE, 0), route, peer.origin)


def _check_clusters(cidr: IpNetwork, peer: Peer, holder: Peer) -> None:
    """Raises CompileError for a CIDR of two nodes that are not of one cluster."""
    own, other = sorted((peer, holder), key=lambda one: one.is_foreign)
    if own is not other and other.is_foreign:
        joined, _, name = other.name.rpartition("/")
        raise CompileError(
            f"{own.origin}: cidr {cidr} of node {own.name} is that of node {name} of the joined cluster {joined} too",
            remedy=f"give one of the two other `cidrs`, or take {joined} out of `clusters` of the Cluster",
        )


def _cluster_id(cluster: Cluster, peer: Peer) -> int:
    """Of the cluster that the node is in, this one or one that it is joined with."""
    name, _, _ = peer.name.rpartition("/")
    return next((one.id for one in cluster.clusters if one.name == name), cluster.id)


def _outer_families(cluster: Cluster, node: Node, facts: Facts) -> list[int]:
    every = (_reached(partial(_ends, cluster.network.underlay, node, peer), peer) for peer in facts.peers.values())
    return sorted({ends[0].version for ends in every if ends is not None})


def unreached(cluster: Cluster, node: Node, facts: Facts) -> Iterator[Warning]:
    """A warning for each node of a joined cluster that is there and that no packet of this one can get to."""
    for peer in facts.peers.values():
        if not peer.is_foreign or not _addresses(peer):
            continue
        try:
            if cluster.network.is_overlay:
                _ends(cluster.network.underlay, node, peer)
            elif cluster.network.direct_routes:
                _gateways(peer, facts)
        except CompileError as error:
            yield Warning(cluster.origin.path, cluster.origin.line, 1, f"node {peer.name} is left out: {error}")


def _reached(way: Callable[[], T], peer: Peer) -> T | None:
    """None for a node of a joined cluster without a way to it: what others commit must not stop this cluster."""
    try:
        return way()
    except CompileError:
        if peer.is_foreign:
            return None
        raise


def _nowhere(peer: Peer) -> Iterator[AskedRow]:
    """Packets for a node that cannot be reached end here and do not leave by the default route."""
    for cidr in cidrs(peer):
        yield AskedRow("routes", RouteKey(HOST_NETNS, cidr, MAIN_TABLE, LAST_RESORT), UNREACHABLE, peer.origin)


def _ends(underlay: int, node: Node, peer: Peer) -> tuple[IpAddress, IpAddress]:
    """The outer addresses: the peer's and this node's."""
    if underlay != 6 and peer.address4 is not None and node.address4 is not None:
        return peer.address4, node.address4
    if underlay != 4 and peer.address6 is not None and node.address6 is not None:
        return peer.address6, node.address6
    family = f" over IPv{underlay}" if underlay else ""
    raise CompileError(
        f"{peer.origin}: no tunnel between {node.name} and {peer.name}{family}: they have no addresses of one family",
        remedy=f"give both nodes spec.addresses; {node.name} is in {node.origin}",
    )


def outer_version(cluster: Cluster, node: Node, peer: Peer) -> int:
    """IP version of what is around packets to the peer in an overlay. Raises CompileError where no tunnel is."""
    return _ends(cluster.network.underlay, node, peer)[0].version


def _direct_routes(facts: Facts) -> Iterator[AskedRow]:
    holders: dict[IpNetwork, Peer] = {}
    for peer in facts.peers.values():
        ways = _reached(partial(_gateways, peer, facts), peer)
        if ways is None:
            yield from _nowhere(peer)
            continue
        for cidr, (gateway, device) in ways.items():
            _check_clusters(cidr, peer, holders.setdefault(cidr, peer))
            route = Route(device, gateway)
            yield AskedRow("routes", RouteKey(HOST_NETNS, cidr, MAIN_TABLE, 0), route, peer.origin)


def _gateways(peer: Peer, facts: Facts) -> dict[IpNetwork, tuple[IpAddress, str]]:
    return {cidr: _gateway(cidr, peer, facts) for cidr in cidrs(peer)}


def _gateway(cidr: IpNetwork, peer: Peer, facts: Facts) -> tuple[IpAddress, str]:
    """The peer's address and the device behind which it is; of the CIDR's own family where there is one."""
    for address in sorted(_addresses(peer), key=lambda one: one.version != cidr.version):
        if (device := facts.underlay.get(address.version)) and (cidr.version == 4 or address.version == 6):
            return address, device
    raise CompileError(
        f"{peer.origin}: no direct route to {cidr} of {peer.name}: the two nodes have no addresses of one family, "
        f"or no device here has this node's address",
        remedy="give both nodes spec.addresses, as their devices have them",
    )


def _addresses(peer: Peer) -> list[IpAddress]:
    return [address for address in (peer.address4, peer.address6) if address is not None]
