"""What a lab consists of, worked out from a commit: hosts with addresses, workloads with namespaces. Nothing is made.

    host namespace      LAB-NODE        eth0 with the addresses of its Node, or 172.30.0.N and fd30::N
    underlay namespace  LAB_underlay    a bridge that joins the hosts, and routes their workloads' networks unless an
                                        overlay carries them; the etcd of the Cluster, if it has one

The underlay also is the outside world: 172.30.255.254 and fd30::ffff, from where workloads can be reached and tried.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from reconciler.errors import UsageError
from reconciler.lab.etcd import Server, servers
from reconciler.lab.registry import LABS, Lab
from reconciler.model.cluster import Node
from reconciler.model.snapshot import Snapshot

NETNS_ROOT = "/run/netns"
RANGE4 = IPv4Network("172.30.0.0/16")
RANGE6 = IPv6Network("fd30::/64")
OUTSIDE4 = RANGE4[-2]
OUTSIDE6 = RANGE6[0xFFFF]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Host:
    """`namespace` is a path; `addresses` are one IPv4 and one IPv6; `cidrs` are what the underlay routes to it."""

    node: str
    namespace: str
    addresses: tuple[Address, Address]
    cidrs: tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """`workloads`: namespace/name -> path of its network namespace."""

    underlay: str
    hosts: tuple[Host, ...]
    workloads: Mapping[str, str]
    etcd: tuple[Server, ...]


def topology(lab: Lab, snapshot: Snapshot) -> Topology:
    """Hosts that the lab has already keep their addresses.

    Raises UsageError when the commit has no nodes, or a name cannot be one.
    """
    if not _NAME.fullmatch(lab.name):
        raise UsageError(f"{lab.name!r} cannot be a lab's name: lower-case letters, digits and dashes, at most 42")
    if not snapshot.nodes:
        raise UsageError("the commit has no Node", remedy="add one: apiVersion: plumbline/v1, kind: Node")
    if LABS.name in snapshot.nodes:
        raise UsageError(f"a lab cannot have a node called {LABS.name!r}: its own files are kept under that name")
    etcd = servers(snapshot.cluster.store)
    hosts = _hosts(lab, [snapshot.nodes[name] for name in sorted(snapshot.nodes)], {server.address for server in etcd})
    if snapshot.cluster.network.is_overlay:
        hosts = tuple(replace(host, cidrs=()) for host in hosts)
    return Topology(
        underlay=f"{NETNS_ROOT}/{lab.name}_underlay",
        hosts=hosts,
        workloads={name: workload.netns for name, workload in sorted(snapshot.workloads.items())},
        etcd=etcd,
    )


def clashes(planned: Topology, others: Sequence[Lab]) -> list[str]:
    """What another lab has already, in words; empty if the two can live side by side."""
    found = []
    for other in others:
        found += [f"node {host.node} is in lab {other.name}" for host in planned.hosts if host.node in other.hosts]
        theirs = set(other.workloads.values())
        found += [
            f"{path} ({name}) is in lab {other.name}" for name, path in planned.workloads.items() if path in theirs
        ]
    return found


def _hosts(lab: Lab, nodes: Sequence[Node], servers: Collection[Address]) -> tuple[Host, ...]:
    given = {address for pair in lab.addresses.values() for address in map(ip_address, pair)}
    asked = {address for node in nodes for address in (node.address4, node.address6)}
    free4 = _free(RANGE4, {*given, *asked, *servers, OUTSIDE4})
    free6 = _free(RANGE6, {*given, *asked, *servers, OUTSIDE6})
    hosts = []
    for node in nodes:
        kept4, kept6 = map(ip_address, lab.addresses.get(node.name) or (next(free4), next(free6)))
        addresses = (node.address4 or kept4, node.address6 or kept6)
        cidrs = tuple(cidr for cidr in (node.cidr4, node.cidr6) if cidr is not None)
        hosts.append(Host(node.name, f"{NETNS_ROOT}/{lab.name}-{node.name}", addresses, cidrs))
    return tuple(hosts)


def _free(network: IPv4Network | IPv6Network, taken: Collection[object]) -> Iterator[Address]:
    return (address for address in network.hosts() if address not in taken)
