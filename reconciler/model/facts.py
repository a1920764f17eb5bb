"""What a host knows besides the commit: identities and addresses that were allocated, and its own addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin
from reconciler.model.outside import NodeDevice


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A workload with what it was given. `ifname` is the host end of its veth pair (at most 15 bytes)."""

    reference: str  # namespace/name of its Workload
    node: str
    identity: int
    ifname: str
    address4: IPv4Address | None
    address6: IPv6Address | None
    mac: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, of this cluster or of one that it is joined with. `address*`: on the network between nodes.

    `name` is the node's, `cluster/name` in another cluster.
    """

    name: str
    origin: Origin
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    cidr4: IPv4Network | None = None
    cidr6: IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """`identities`: number -> labels, of workloads and of reserved ones, whole cluster.
    `endpoints`: workload reference -> endpoint, whole cluster.
    `peers`: name -> node, of all nodes but this one that are known to be there.
    `underlay`: IP version -> the device that has this node's address, where there is one.
    `devices`: name -> device, of those that face the outside.
    `complete` is false while something is still unknown: then nothing may be pruned.
    """

    node: str
    identities: Mapping[int, LabelSet]
    endpoints: Mapping[str, Endpoint]
    host_addresses: frozenset[IPv4Address | IPv6Address]
    complete: bool = True
    peers: Mapping[str, Peer] = field(default_factory=dict)
    underlay: Mapping[int, str] = field(default_factory=dict)
    devices: Mapping[str, NodeDevice] = field(default_factory=dict)
