"""Service documents.

Source of what is refused: Kubernetes, pkg/apis/core/validation/validation.go (ValidateService).
"""

from __future__ import annotations

import re

from reconciler.model.origin import Origin
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import FamilyPolicy, Service, ServicePort, ServiceType, TrafficPolicy
from reconciler.source import addresses, balancing, metadata, ports
from reconciler.source.addresses import Address, Network
from reconciler.source.cluster import Places
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node

NO_ADDRESS = "None"  # as the cluster address of a headless service
AFFINITY_S = 10800
_FAMILIES = {"IPv4": 4, "IPv6": 6}
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LONGEST_PORT_NAME = 63


def service(document: Node, identity: Identity, findings: Findings) -> tuple[Service, Places]:
    spec = document.get("spec")
    assert spec is not None  # its schema requires it
    kind = ServiceType(spec.read("type", default=ServiceType.CLUSTER_IP.value))
    cluster_ips = _cluster_ips(spec, findings)
    headless = spec.read("clusterIP") == NO_ADDRESS or spec.read("clusterIPs") == [NO_ADDRESS]
    found = Service(
        namespace=identity.namespace,
        name=identity.name,
        origin=Origin("", document.place.line, identity.kind, f"{identity.namespace}/{identity.name}", ""),
        type=kind,
        labels=metadata.labels(document, findings),
        selector=_selector(spec, findings),
        ports=_ports(spec, findings),
        headless=headless,
        cluster_ips=cluster_ips,
        families=tuple(_FAMILIES[family] for family in spec.read("ipFamilies", default=())),
        family_policy=_family_policy(spec),
        external_name=spec.read("externalName", default=""),
        external_ips=_addresses(spec.items("externalIPs"), findings),
        load_balancer_ip=next(iter(_addresses([ip] if (ip := _given(spec, "loadBalancerIP")) else [], findings)), None),
        load_balancer_class=spec.read("loadBalancerClass", default=""),
        source_ranges=_networks(spec, findings),
        affinity_s=_affinity_s(spec, findings),
        external_traffic=TrafficPolicy(spec.read("externalTrafficPolicy", default=TrafficPolicy.CLUSTER.value)),
        internal_traffic=TrafficPolicy(spec.read("internalTrafficPolicy", default=TrafficPolicy.CLUSTER.value)),
        traffic_distribution=spec.read("trafficDistribution", default=""),
        health_check_node_port=int(spec.read("healthCheckNodePort", default=0)),
        allocates_node_ports=spec.read("allocateLoadBalancerNodePorts", default=True),
        publishes_not_ready=spec.read("publishNotReadyAddresses", default=False),
        algorithm=balancing.algorithm(document, findings),
        health=balancing.health_check(document, findings),
        all_unhealthy=balancing.all_unhealthy(document, findings),
    )
    _check_type(found, spec, findings)
    _check_families(found, spec, findings)
    return found, _places(spec)


def _places(spec: Node) -> Places:
    """Of what others may have claims on: `clusterIPs[0]`, `externalIPs[0]`, `loadBalancerIP`, `ports[0].nodePort`."""
    found = {f"ports[{at}].nodePort": node.place_of("nodePort") for at, node in enumerate(spec.items("ports"))}
    found |= {f"externalIPs[{at}]": node.place for at, node in enumerate(spec.items("externalIPs"))}
    found |= {f"clusterIPs[{at}]": node.place for at, node in enumerate(_asked_for(spec))}
    return found | {"loadBalancerIP": spec.place_of("loadBalancerIP")}


def _given(spec: Node, field: str) -> Node | None:
    """The node of a text; '' counts as absent, as it does for Kubernetes."""
    node = spec.get(field)
    return node if node is not None and node.value else None


def _selector(spec: Node, findings: Findings) -> dict[str, str]:
    node = spec.get("selector")
    for key, part in node.members() if node else ():
        assert node is not None
        if fault := metadata.key_fault(key) or metadata.value_fault(part.value):
            findings.fault(node.key_place(key), fault)
    return dict(node.value) if node else {}


def _cluster_ips(spec: Node, findings: Findings) -> tuple[Address, ...]:
    first, listed = _given(spec, "clusterIP"), spec.items("clusterIPs")
    if first is not None and listed and listed[0].value != first.value:
        findings.fault(listed[0], f"clusterIPs begins with {listed[0].value}, but clusterIP is {first.value}")
    wanted = _asked_for(spec)
    if len(wanted) == 1 and wanted[0].value == NO_ADDRESS:
        return ()
    found = addresses.per_family(wanted, findings, "the service").values()
    for address, node in found:
        _check_usable(address, node, findings)
    return tuple(address for address, _ in found)


def _asked_for(spec: Node) -> list[Node]:
    """The cluster addresses, as nodes."""
    first = _given(spec, "clusterIP")
    return spec.items("clusterIPs") or ([first] if first is not None else [])


def _addresses(nodes: list[Node], findings: Findings) -> tuple[Address, ...]:
    found: dict[Address, Node] = {}
    for node in nodes:
        address = addresses.address(node, findings)
        if address is None:
            continue
        _check_usable(address, node, findings)
        if address in found:
            findings.fault(node, f"{address} is already in the list, on line {found[address].place.line}")
        found[address] = node
    return tuple(found)


def _check_usable(address: Address, node: Node, findings: Findings) -> None:
    if addresses.unusable(address):
        findings.fault(node, f"{address} cannot be an address of a service: it is {addresses.UNUSABLE}")


def _family_policy(spec: Node) -> FamilyPolicy:
    """Absent, it follows from what is asked for (pkg/registry/core/service/storage/alloc.go)."""
    both = max(len(spec.items("clusterIPs")), len(spec.items("ipFamilies"))) > 1
    implied = FamilyPolicy.REQUIRE_DUAL if both else FamilyPolicy.SINGLE
    return FamilyPolicy(spec.read("ipFamilyPolicy", default=implied.value))


def _networks(spec: Node, findings: Findings) -> tuple[Network, ...]:
    nodes = spec.items("loadBalancerSourceRanges")
    found = (addresses.network(node, findings, host_bits=True) for node in nodes)
    return tuple(network for network in found if network is not None)


def _affinity_s(spec: Node, findings: Findings) -> int:
    config = spec.get("sessionAffinityConfig", "clientIP")
    if spec.read("sessionAffinity") == "ClientIP":
        return int(config.read("timeoutSeconds", default=AFFINITY_S)) if config else AFFINITY_S
    if config is not None:
        findings.fault(spec.key_place("sessionAffinityConfig"), "sessionAffinityConfig needs sessionAffinity: ClientIP")
    return 0


def _ports(spec: Node, findings: Findings) -> tuple[ServicePort, ...]:
    nodes = spec.items("ports")
    found: list[ServicePort] = []
    for node in nodes:
        name: str = node.read("name", default="")
        if name or len(nodes) > 1:
            _check_port_name(name, node, found, findings)
        protocol = node.read("protocol", default="TCP")
        port = int(node.read("port"))
        if any((one.protocol, one.port) == (PROTOCOLS[protocol], port) for one in found):
            findings.fault(node.place_of("port"), f"a second port {port}/{protocol}")
        found.append(
            ServicePort(
                name=name,
                protocol=PROTOCOLS[protocol],
                port=port,
                target=_target(node, port, findings),
                node_port=int(node.read("nodePort", default=0)),
                app_protocol=node.read("appProtocol", default=""),
            )
        )
    return tuple(found)


def _check_port_name(name: str, node: Node, others: list[ServicePort], findings: Findings) -> None:
    if not name:
        findings.fault(node, "a port of several needs a name")
    elif not _PORT_NAME.match(name) or len(name) > _LONGEST_PORT_NAME:
        longest = f"up to {_LONGEST_PORT_NAME} lower case letters, digits and -"
        findings.fault(node.place_of("name"), f'port name "{name}" may hold {longest}')
    elif any(other.name == name for other in others):
        findings.fault(node.place_of("name"), f'two ports are called "{name}"')


def _target(node: Node, port: int, findings: Findings) -> int | str:
    target = node.read("targetPort")
    if isinstance(target, str) and target and not ports.is_name(target):
        findings.fault(
            node.place_of("targetPort"), f'targetPort "{target}" is neither a port number nor {ports.NAME_FORM}'
        )
    return target or port


def _check_type(found: Service, spec: Node, findings: Findings) -> None:
    """Fields that only some types have, and those that a type must have."""
    kind, outside = found.type, found.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)
    if kind is ServiceType.EXTERNAL_NAME and not found.external_name:
        findings.fault(spec, "a Service of type ExternalName needs an externalName")
    if not (found.ports or found.headless or kind is ServiceType.EXTERNAL_NAME):
        findings.fault(
            spec, "the service has no ports; only headless ones and those of type ExternalName may have none"
        )
    if found.headless and outside:
        findings.fault(spec.place_of("type"), f"a headless service (clusterIP: None) cannot be of type {kind.value}")
    if not outside:
        for node in spec.items("ports"):
            if node.read("nodePort"):
                findings.fault(
                    node.key_place("nodePort"), f"nodePort needs type NodePort or LoadBalancer, not {kind.value}"
                )
    if found.health_check_node_port and not (
        kind is ServiceType.LOAD_BALANCER and found.external_traffic is TrafficPolicy.LOCAL
    ):
        findings.fault(
            spec.key_place("healthCheckNodePort"),
            "healthCheckNodePort needs type LoadBalancer and externalTrafficPolicy: Local",
        )
    for field in ("loadBalancerSourceRanges", "loadBalancerClass"):
        if spec.read(field) and kind is not ServiceType.LOAD_BALANCER:
            findings.fault(spec.key_place(field), f"{field} needs type LoadBalancer, not {kind.value}")


def _check_families(found: Service, spec: Node, findings: Findings) -> None:
    if len(set(found.families)) < len(found.families):
        findings.fault(spec.key_place("ipFamilies"), "ipFamilies names a family twice")
    if found.families and tuple(ip.version for ip in found.cluster_ips) != found.families[: len(found.cluster_ips)]:
        findings.fault(spec.key_place("ipFamilies"), "ipFamilies and clusterIPs are not of the same families")
    if len(found.families) > 1 and found.family_policy is FamilyPolicy.SINGLE:
        findings.fault(
            spec.key_place("ipFamilies"), "two ipFamilies need ipFamilyPolicy PreferDualStack or RequireDualStack"
        )
