"""Services and the addresses behind them: what Kubernetes' manifests of both kinds say.

Source of fields and defaults: k8s.io/api core/v1 types.go (Service) and discovery/v1 types.go (EndpointSlice).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.model.balancing import Algorithm
from reconciler.model.origin import Origin

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class ServiceType(Enum):
    """Each of the first three offers what those before it offer, and more."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class TrafficPolicy(Enum):
    CLUSTER = "Cluster"  # to any endpoint
    LOCAL = "Local"  # to endpoints of the same node only


class HealthKind(Enum):
    TCP = "tcp"  # a connection can be made
    HTTP = "http"  # GET is answered with a status of 200 to 399


class AllUnhealthy(Enum):
    """What becomes of new flows while no backend answers its checks."""

    REFUSE = "refuse"
    OPEN = "open"  # to all of them


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How hosts find out whether a backend answers. `port` 0: the one that gets the flows.

    healthy, unhealthy    checks in a row after which a backend counts as such
    """

    kind: HealthKind = HealthKind.TCP
    path: str = "/"
    port: int = 0
    interval_s: float = 5.0
    timeout_s: float = 1.0
    healthy: int = 2
    unhealthy: int = 2


class FamilyPolicy(Enum):
    SINGLE = "SingleStack"
    PREFER_DUAL = "PreferDualStack"
    REQUIRE_DUAL = "RequireDualStack"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`target` is a port of the endpoints, by number or by name. `node_port` 0: chosen where the type has any."""

    name: str
    protocol: int
    port: int
    target: int | str
    node_port: int = 0
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """Its endpoints are the workloads of its namespace that have all labels of `selector`, and those of its slices.

    selector            empty: it selects no workload
    headless            it has no address of its own; names resolve to its endpoints
    cluster_ips         asked for; empty: chosen, but for headless services
    families            4 and 6 in the order of preference; empty: as the cluster has them
    affinity_s          seconds for which a client keeps its endpoint, 0: not at all
    source_ranges       who may use it from outside; empty: anybody
    algorithm           None: as the cluster has it
    health              None: its endpoints are not checked
    """

    namespace: str
    name: str
    origin: Origin
    type: ServiceType = ServiceType.CLUSTER_IP
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    headless: bool = False
    cluster_ips: tuple[Address, ...] = ()
    families: tuple[int, ...] = ()
    family_policy: FamilyPolicy = FamilyPolicy.SINGLE
    external_name: str = ""
    external_ips: tuple[Address, ...] = ()
    load_balancer_ip: Address | None = None
    load_balancer_class: str = ""
    source_ranges: tuple[Network, ...] = ()
    affinity_s: int = 0
    external_traffic: TrafficPolicy = TrafficPolicy.CLUSTER
    internal_traffic: TrafficPolicy = TrafficPolicy.CLUSTER
    traffic_distribution: str = ""
    health_check_node_port: int = 0
    allocates_node_ports: bool = True
    publishes_not_ready: bool = False
    algorithm: Algorithm | None = None
    health: HealthCheck | None = None
    all_unhealthy: AllUnhealthy = AllUnhealthy.REFUSE

    @property
    def reference(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One endpoint; all its addresses are of its slice's family. A slice of DNS names has endpoints without any.

    `target` is what stands behind it, as `Kind/namespace/name`.
    """

    addresses: tuple[Address, ...]
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    hostname: str = ""
    node: str = ""
    zone: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class SlicePort:
    """`port` 0: any."""

    name: str
    protocol: int
    port: int
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Endpoints of the service called `service` in the same namespace ('' is nobody's).

    `weight`: the share of new flows that each gets, beside others of the service; 0: none.
    """

    namespace: str
    name: str
    origin: Origin
    service: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()
    weight: int = 1

    @property
    def reference(self) -> str:
        return f"{self.namespace}/{self.name}"
