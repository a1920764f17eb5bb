"""The cluster as a whole, its nodes, its namespaces and its workloads: what manifests of our own kinds say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.model.balancing import Algorithm
from reconciler.model.labels import EVERY_LABEL, IdentityLabels
from reconciler.model.origin import Origin
from reconciler.model.outside import NO_MASQUERADE, Masquerade


class Enforcement(Enum):
    DEFAULT = "default"  # a workload is isolated in a direction once a rule selects it
    ALWAYS = "always"
    NEVER = "never"


class AllowLocalhost(Enum):
    """Whether the host itself may open connections to its workloads whatever their policy."""

    AUTO = "auto"  # as `policy`, until a rule that redirects to the host's proxy needs more
    ALWAYS = "always"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without a packet after which conntrack forgets a flow."""

    tcp_established_s: int = 21600
    tcp_opening_s: int = 60
    tcp_closing_s: int = 10
    udp_s: int = 60
    icmp_s: int = 30
    other_s: int = 60


@dataclass(frozen=True, slots=True)
class Conntrack:
    max_entries: int = 131072
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class Probe:
    """A connection tried after every apply, from inside a workload; if it fails, the apply is undone."""

    name: str
    source: str  # namespace/name of a Workload
    host: str  # an address, or namespace/name of a Workload
    port: int
    expect_open: bool
    timeout_s: float
    origin: Origin


class NetworkMode(Enum):
    """How packets reach workloads of other nodes."""

    NATIVE = "native"  # as they are: the network between the nodes knows the way
    VXLAN = "vxlan"
    GENEVE = "geneve"


@dataclass(frozen=True, slots=True)
class Network:
    """`direct_routes` (native): nodes share a segment, and each has routes over the others' addresses.

    `underlay`: the family (4 or 6) of the outer packets; 0: IPv4 where both nodes have it. `port`: 0: the mode's own.
    """

    mode: NetworkMode = NetworkMode.NATIVE
    direct_routes: bool = False
    underlay: int = 0
    port: int = 0

    @property
    def is_overlay(self) -> bool:
        return self.mode is not NetworkMode.NATIVE


class StoreKind(Enum):
    """Where hosts keep what they share."""

    EMBEDDED = "embedded"  # a file: for a cluster of one host
    ETCD = "etcd"


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """`endpoints`: `host:port` of the servers of an etcd, in the order in which they are tried.

    `ttl_s`: what a host says of itself is forgotten after that time without a word of it.
    """

    kind: StoreKind = StoreKind.EMBEDDED
    endpoints: tuple[str, ...] = ()
    ttl_s: float = 900.0


@dataclass(frozen=True, slots=True)
class JoinedCluster:
    """Another cluster of the same flat network; `id` is in the identities of its workloads."""

    name: str
    id: int
    store: StoreChoice


@dataclass(frozen=True, slots=True)
class Pool:
    """What nodes without a CIDR of their own get one from; `node_prefix` is the length of such a CIDR."""

    cidr: IPv4Network | IPv6Network
    node_prefix: int


@dataclass(frozen=True, slots=True)
class Health:
    """How hosts find out whether they reach each other. `interval_s` 0: not at all.

    `failures`: probes without an answer, in a row, that make a node unreachable.
    """

    interval_s: float = 10.0
    failures: int = 3


class DirectReturn(Enum):
    """How the backend's host learns which frontend a client outside asked for, so that it answers with its address."""

    NONE = "none"  # it does not: answers go back over the host that was asked
    OPTION = "option"  # an IPv4 option or an IPv6 destination option of what opens a flow
    IPIP = "ipip"  # the client's packet as it came, wrapped in another IP header
    GENEVE = "geneve"  # an option of the Geneve header that the packet is wrapped in


# What a node says that takes `geneve` only where both headers are of one IP version: its kernel is older than 6.3.
GENEVE_OF_ONE_VERSION = "geneve of one IP version"


@dataclass(frozen=True, slots=True)
class Services:
    """How services are served. `cidrs`: what their addresses come from, at most one for each family.

    `first_node_port`, `last_node_port`: what node ports are chosen from.
    """

    cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    first_node_port: int = 30000
    last_node_port: int = 32767
    algorithm: Algorithm = Algorithm.MAGLEV
    direct_return: DirectReturn = DirectReturn.NONE


class XdpMode(Enum):
    """Whether node devices run a program at XDP."""

    OFF = "off"
    AUTO = "auto"  # in the driver where it takes the program, else behind it
    NATIVE = "native"  # in the driver, or the commit fails
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    origin: Origin
    id: int = 0
    store: StoreChoice = StoreChoice()
    clusters: tuple[JoinedCluster, ...] = ()
    identity_labels: IdentityLabels = EVERY_LABEL
    pools: tuple[Pool, ...] = ()  # at most one for each family
    enforcement: Enforcement = Enforcement.DEFAULT
    allow_localhost: AllowLocalhost = AllowLocalhost.AUTO
    ipblock_matches_workloads: bool = True
    mtu_bytes: int = 0  # of workloads' interfaces; 0: not said (model/overlay.py)
    network: Network = Network()
    services: Services | None = None  # None: nobody serves them, they only group endpoints for policies
    xdp: XdpMode = XdpMode.OFF
    conntrack: Conntrack = Conntrack()
    masquerade: Masquerade = NO_MASQUERADE
    probes: tuple[Probe, ...] = ()
    health: Health = Health()
    waves: tuple[int | str, ...] = (1, "100%")  # of the playbook: hosts, or a share of all hosts, each time

    @property
    def direct_return(self) -> DirectReturn:
        return self.services.direct_return if self.services else DirectReturn.NONE


@dataclass(frozen=True, slots=True)
class StaticRoute:
    destination: IPv4Network | IPv6Network
    ifname: str
    gateway: IPv4Address | IPv6Address | None
    table: int
    priority: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class StaticRule:
    family: int
    priority: int
    table: int
    mark: int
    mark_mask: int
    source: IPv4Network | IPv6Network | None
    destination: IPv4Network | IPv6Network | None
    in_ifname: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Node:
    """`address*` are the node's own on the underlay; `cidr*` are what its workloads' addresses come from.

    `devices`: those that face the outside; none: they are found.
    """

    name: str
    origin: Origin
    cidr4: IPv4Network | None = None
    cidr6: IPv6Network | None = None
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    routes: tuple[StaticRoute, ...] = ()
    rules: tuple[StaticRule, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    ansible: Mapping[str, object] = field(default_factory=dict)  # variables for the inventory
    cgroup: str | None = None  # whose sockets reach services by translated addresses; '' is the root


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str]
    origin: Origin


@dataclass(frozen=True, slots=True)
class NamedPort:
    name: str
    port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A network namespace of a node that we connect. `netns` is a path; `address*` ask for fixed addresses."""

    namespace: str
    name: str
    node: str
    origin: Origin
    netns: str
    interface: str = "eth0"
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[NamedPort, ...] = ()
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    audit: bool = False  # what its policies deny is recorded, and passes
    weight: int = 1  # its share of new flows to services, beside other endpoints; 0: none
    cgroup: str | None = None  # as of a Node; None: services are translated packet by packet

    @property
    def reference(self) -> str:
        return f"{self.namespace}/{self.name}"
