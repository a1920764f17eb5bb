"""What is done at node devices: workloads are masqueraded, services are reached from outside, the host is guarded by
the rules that select it, what other nodes wrapped in Geneve is unwrapped, and who is denied is not heard.

Where nothing of this is asked for, nothing is attached there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.compile.prefilter import selecting
from reconciler.compile.service_direct import wraps_over_routes
from reconciler.compile.tables import AskedRow
from reconciler.errors import CompileError
from reconciler.model.cluster import Cluster, NetworkMode, Node, XdpMode
from reconciler.model.datapath import AttachmentKey, AttachmentRow, Hook
from reconciler.model.facts import Facts
from reconciler.model.network import HOST_NETNS, Sysctl, SysctlKey
from reconciler.model.outside import DeviceFlag, DeviceRow, Masquerade, NodeDevice, PlainKey, PlainRow
from reconciler.model.snapshot import Snapshot

PROGRAMS = {Hook.INGRESS: "from_netdev", Hook.EGRESS: "to_netdev"}
EARLY = {  # only what can be nowhere else than in a driver is the program for drivers
    XdpMode.AUTO: (Hook.XDP, "at_device"),
    XdpMode.NATIVE: (Hook.XDP_NATIVE, "in_driver"),
    XdpMode.GENERIC: (Hook.XDP_GENERIC, "at_device"),
}
OWN = "lo"  # its row has the addresses by which other nodes know this host (bpf/lib/devices.h), for what it wraps
RESERVED_PORTS = "net/ipv4/ip_local_reserved_ports"  # of both families; the kernel gives none of them to a socket


def outside_rows(
    snapshot: Snapshot, node: Node, facts: Facts, programs: Mapping[str, str], *, guarded: bool
) -> Iterator[AskedRow]:
    """`guarded`: rules select this host. Raises CompileError for a program that is not built."""
    masquerade = snapshot.cluster.masquerade
    unwraps = snapshot.cluster.network.mode is NetworkMode.GENEVE
    serves = snapshot.cluster.services is not None
    denies = bool(selecting(snapshot, node.name))
    if not masquerade.enabled and not serves and not guarded and not unwraps and not denies:
        return
    hooks = {**PROGRAMS, **_early(snapshot.cluster, programs, serves=serves, denies=denies)}
    for ifname, device in facts.devices.items():
        row = _device(device, masquerade, guarded=guarded, serves=serves)
        if not row.flags and not unwraps and not denies:  # no address that workloads could leave with
            continue
        yield AskedRow("devices", ifname, row, node.origin)
        for hook, program in hooks.items():
            if program not in programs:
                raise CompileError(f"the program {program} is not built")
            attached = AttachmentRow(program, programs[program])
            yield AskedRow("attachments", AttachmentKey(ifname, hook), attached, node.origin)
    if wraps_over_routes(snapshot.cluster):
        yield AskedRow("devices", OWN, DeviceRow(DeviceFlag.NOTHING, node.address4, node.address6), node.origin)
    origin = snapshot.cluster.origin
    if masquerade.enabled:
        for network in _plain(snapshot, facts, masquerade):
            yield AskedRow("plain", network, PlainRow(), origin)
    said = {RESERVED_PORTS, RESERVED_PORTS.replace("/", ".")} & node.sysctls.keys()
    if (masquerade.enabled or serves) and not said:
        ports = Sysctl(_reserved_ports(snapshot.cluster))
        yield AskedRow("sysctls", SysctlKey(HOST_NETNS, RESERVED_PORTS), ports, origin)


def _reserved_ports(cluster: Cluster) -> str:
    """Of masquerading and services, as the kernel writes it: in order, what touches as one (proc_do_large_bitmap)."""
    ranges = [(cluster.masquerade.first_port, cluster.masquerade.last_port)]
    if cluster.services is not None:
        ranges.append((cluster.services.first_node_port, cluster.services.last_node_port))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in joined)


def _early(cluster: Cluster, programs: Mapping[str, str], *, serves: bool, denies: bool) -> dict[Hook, str]:
    """The program at XDP. Raises CompileError where it is asked for and this kernel has none."""
    if cluster.xdp is XdpMode.OFF or not (serves or denies):
        return {}
    hook, program = EARLY[cluster.xdp]
    if program not in programs:
        if cluster.xdp is XdpMode.AUTO:
            return {}
        raise CompileError(
            f"{cluster.origin}: xdp.mode is {cluster.xdp.value}, and this kernel has no XDP",
            remedy="set it to auto or off",
        )
    return {hook: program}


def _device(device: NodeDevice, masquerade: Masquerade, *, guarded: bool, serves: bool) -> DeviceRow:
    flags = DeviceFlag.HOST_POLICY if guarded else DeviceFlag.NOTHING
    if serves:
        flags |= DeviceFlag.SERVICES
    if masquerade.enabled and device.address4 is not None:
        flags |= DeviceFlag.MASQUERADE4
    if masquerade.enabled and device.address6 is not None:
        flags |= DeviceFlag.MASQUERADE6
    if not masquerade.enabled and not serves:
        return DeviceRow(flags)
    return DeviceRow(flags, device.address4, device.address6)


def _plain(snapshot: Snapshot, facts: Facts, masquerade: Masquerade) -> list[PlainKey]:
    """Without doubles, in a stable order."""
    of_nodes = [cidr for node in snapshot.nodes.values() for cidr in (node.cidr4, node.cidr6)]
    of_peers = [cidr for peer in facts.peers.values() for cidr in (peer.cidr4, peer.cidr6)]
    of_pools = [pool.cidr for pool in snapshot.cluster.pools]
    return list(dict.fromkeys(one for one in (*of_nodes, *of_peers, *of_pools, *masquerade.exclude) if one is not None))
