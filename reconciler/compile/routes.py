"""Routes of local workloads, and what the `Node` manifest asks for beyond them: routes, rules, sysctls.

A workload sees no subnet: one on-link gateway that the BPF program answers for. The host reaches each workload by a
route of full length.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from reconciler.compile.members import addresses
from reconciler.compile.tables import AskedRow
from reconciler.model.cluster import Node, Workload
from reconciler.model.facts import Endpoint
from reconciler.model.network import HOST_NETNS, Route, RouteKey, Rule, RuleKey, Sysctl, SysctlKey
from reconciler.model.origin import Origin

MAIN_TABLE = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
GATEWAY4 = IPv4Address("169.254.1.1")
GATEWAY6 = IPv6Address("fe80::1")
DEFAULT4 = IPv4Network("0.0.0.0/0")
DEFAULT6 = IPv6Network("::/0")
FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def workload_routes(workload: Workload, endpoint: Endpoint) -> Iterator[AskedRow]:
    inside = workload.interface
    if endpoint.address4 is not None:
        yield _route(workload.netns, ip_network(GATEWAY4), Route(inside), workload.origin)
        yield _route(workload.netns, DEFAULT4, Route(inside, gateway=GATEWAY4, onlink=True), workload.origin)
    if endpoint.address6 is not None:
        yield _route(workload.netns, DEFAULT6, Route(inside, gateway=GATEWAY6, onlink=True), workload.origin)
    for address in addresses(endpoint):
        yield _route(HOST_NETNS, ip_network(address), Route(endpoint.ifname), workload.origin)


def _route(netns: str, destination: IPv4Network | IPv6Network, route: Route, origin: Origin) -> AskedRow:
    return AskedRow("routes", RouteKey(netns, destination, MAIN_TABLE, 0), route, origin)


def node_rows(node: Node, used: Collection[int]) -> Iterator[AskedRow]:
    """Forwarding is on for the families (4, 6) of the node's CIDRs and for those `used`; its own sysctls win."""
    for static in node.routes:
        key = RouteKey(HOST_NETNS, static.destination, static.table, static.priority)
        yield AskedRow("routes", key, Route(static.ifname, static.gateway), static.origin)
    for rule in node.rules:
        row = Rule(rule.table, rule.mark, rule.mark_mask, rule.source, rule.destination, rule.in_ifname)
        yield AskedRow("rules", RuleKey(HOST_NETNS, rule.family, rule.priority), row, rule.origin)
    families = set(used) | {cidr.version for cidr in (node.cidr4, node.cidr6) if cidr is not None}
    wanted = {FORWARDING[family]: "1" for family in sorted(families)}
    wanted |= {_slashed(name): value for name, value in node.sysctls.items()}
    for name, value in wanted.items():
        yield AskedRow("sysctls", SysctlKey(HOST_NETNS, name), Sysctl(value), node.origin)


def _slashed(name: str) -> str:
    """`net.ipv4.ip_forward` as `net/ipv4/ip_forward`, as sysctl(8) reads both forms."""
    return name if "/" in name else name.replace(".", "/")
