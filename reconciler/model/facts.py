"""What a host knows besides the commit: identities and addresses that were allocated, and its own addresses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
from numpy.typing import NDArray

from reconciler.model.cluster import DirectReturn, NamedPort
from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin
from reconciler.model.outside import NodeDevice


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A workload with what it was given. `ifname` is the host end of its veth pair (at most 15 bytes).

    `ifname` and `mac` are '' where it is another node's.
    """

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

    `name` is the node's, `cluster/name` in another cluster. `direct_return`: the way in which it takes what this one
    brings to its backends, as it says itself.
    """

    name: str
    origin: Origin
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    cidr4: IPv4Network | None = None
    cidr6: IPv6Network | None = None
    direct_return: str = DirectReturn.NONE.value

    @property
    def is_foreign(self) -> bool:
        return is_foreign(self.name)


def is_foreign(node: str) -> bool:
    """Whether the node is of another cluster: no name in a manifest has a slash."""
    return "/" in node


# A row for each address; `endpoint` and `ports` are indexes of the lists beside it. Addresses as in IPCACHE_KEY.
REMOTE_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("identity", "<u4"), ("endpoint", "<u4"), ("ports", "<u4")])


@dataclass(frozen=True, slots=True, eq=False)
class RemoteEndpoints:
    """Workloads of other hosts as these announced them, in columns: there are many, and little is asked of each.

    `names`, `nodes`, `origins`: of each endpoint (`namespace/name`; the node as in `Peer`). `ports`: sets of named
    ports, the first of them empty. No two rows have one address. Never changed once made.
    """

    rows: NDArray[np.void] = field(default_factory=lambda: np.empty(0, REMOTE_ROW))
    names: Sequence[str] = ()
    nodes: Sequence[str] = ()
    origins: Sequence[Origin] = ()
    ports: Sequence[frozenset[NamedPort]] = (frozenset(),)

    def __len__(self) -> int:
        """Addresses."""
        return len(self.rows)

    def of_identities(self, known: Collection[int]) -> RemoteEndpoints:
        """Those that have one of these."""
        rows = self.rows[np.isin(self.rows["identity"], np.array([*known], np.uint32))]
        return replace(self, rows=rows)


NO_REMOTE = RemoteEndpoints()

BackendKey = tuple[IPv4Address | IPv6Address, int, int]  # address, port, protocol


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """`addresses`: service (`namespace/name`) -> its addresses inside the cluster, asked for or given.
    `node_ports`: service port as `port_name` has it -> its port on every node.
    `unhealthy`: service -> backends that do not answer this host's checks.
    """

    addresses: Mapping[str, tuple[IPv4Address | IPv6Address, ...]] = field(default_factory=dict)
    node_ports: Mapping[str, int] = field(default_factory=dict)
    unhealthy: Mapping[str, frozenset[BackendKey]] = field(default_factory=dict)


NO_SERVICES = ServiceFacts()


def port_name(service: str, port: int, protocol: int) -> str:
    """What a port of a service is known by: `default/web 80/6`."""
    return f"{service} {port}/{protocol}"


@dataclass(frozen=True, slots=True)
class Facts:
    """`identities`: number -> labels, of workloads and of reserved ones, whole cluster.
    `endpoints`: workload reference -> endpoint, of this node; of other nodes those that only manifests tell of.
    `remote`: those that other nodes announced.
    `peers`: name -> node, of all nodes but this one that are known to be there.
    `underlay`: IP version -> the device that has this node's address, where there is one.
    `devices`: name -> device, of those that face the outside.
    `host_networks`: what is this host's own besides `host_addresses`: CIDRs of local routes, anycast addresses.
    `complete` is false while something is still unknown: then nothing may be pruned.
    """

    node: str
    identities: Mapping[int, LabelSet]
    endpoints: Mapping[str, Endpoint]
    host_addresses: frozenset[IPv4Address | IPv6Address]
    complete: bool = True
    peers: Mapping[str, Peer] = field(default_factory=dict)
    remote: RemoteEndpoints = NO_REMOTE
    underlay: Mapping[int, str] = field(default_factory=dict)
    services: ServiceFacts = NO_SERVICES
    devices: Mapping[str, NodeDevice] = field(default_factory=dict)
    host_networks: frozenset[IPv4Network | IPv6Network] = frozenset()
