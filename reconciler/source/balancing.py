"""How load is balanced, as manifests say it: settings of the Cluster, and annotations of single documents.

plumbline/algorithm       Service                    maglev | random
plumbline/health-check    Service                    {type: http, path: /healthz, interval: 5}
plumbline/all-unhealthy   Service                    refuse | open
plumbline/weight          EndpointSlice, Workload    0 to 100
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Any, TypeVar

from reconciler.model import overlay
from reconciler.model.balancing import Algorithm
from reconciler.model.cluster import DirectReturn, Network, NetworkMode, Services
from reconciler.model.service import AllUnhealthy, HealthCheck, HealthKind
from reconciler.source import addresses, documents
from reconciler.source.node import Findings, Node
from reconciler.source.phrases import nearest

ALGORITHM, HEALTH_CHECK, ALL_UNHEALTHY = "plumbline/algorithm", "plumbline/health-check", "plumbline/all-unhealthy"
WEIGHT = "plumbline/weight"
MOST_WEIGHT = 100
MOST_CHECKS = 100  # in a row
LONGEST_S = 3600.0

Choice = TypeVar("Choice", bound=Enum)
_NUMBERS = {  # field of a health check -> ours, least, most
    "port": ("port", 1, 65535),
    "interval": ("interval_s", 0.1, LONGEST_S),
    "timeout": ("timeout_s", 0.05, LONGEST_S),
    "healthy": ("healthy", 1, MOST_CHECKS),
    "unhealthy": ("unhealthy", 1, MOST_CHECKS),
}
_UNWRAPPED = (DirectReturn.OPTION, DirectReturn.IPIP)  # need workloads' addresses to be routed between the nodes
_GENEVE_PORT = overlay.PORTS[NetworkMode.GENEVE]
_WHOLE = ("port", "healthy", "unhealthy")
_FIELDS = ("type", "path", *_NUMBERS)


def services(spec: Node, network: Network, findings: Findings) -> Services | None:
    """What the Cluster says of services; None if it does not serve them. `network`: between its nodes."""
    node = spec.get("services")
    if node is None:
        return None
    base = Services()
    first = int(node.read("nodePorts", "first", default=base.first_node_port))
    last = int(node.read("nodePorts", "last", default=base.last_node_port))
    if first > last:
        findings.fault(node.key_place("nodePorts"), f"nodePorts end at {last}, before they begin at {first}")
    chosen = node.read("algorithm", default=base.algorithm.value)
    return Services(_cidrs(node, findings), first, last, Algorithm(chosen), _direct_return(node, network, findings))


def _direct_return(node: Node, network: Network, findings: Findings) -> DirectReturn:
    found = DirectReturn(node.read("directReturn", default=DirectReturn.NONE.value))
    place, mode = node.place_of("directReturn"), network.mode
    if found in _UNWRAPPED and network.is_overlay:
        findings.fault(
            place,
            f"directReturn: {found.value} needs network.mode: native; with {mode.value} it can be none or geneve",
        )
    elif found is DirectReturn.GENEVE and mode is NetworkMode.VXLAN and overlay.port(network) == _GENEVE_PORT:
        findings.fault(
            place,
            f"directReturn: geneve needs UDP port {_GENEVE_PORT}, which network.port gives to vxlan: "
            f"any other network.port is allowed",
        )
    return found


def _cidrs(node: Node, findings: Findings) -> tuple[addresses.Network, ...]:
    found: dict[int, addresses.Network] = {}
    for part in node.items("cidrs"):
        cidr = addresses.network(part, findings)
        if cidr is None:
            continue
        if cidr.version in found:
            findings.fault(part, f"there are two IPv{cidr.version} cidrs, at most one of each family is allowed")
        elif cidr.is_multicast or cidr.is_loopback or cidr.is_link_local or cidr.is_unspecified:
            findings.fault(part, f"{cidr} holds no addresses that a service can have")
        found[cidr.version] = cidr
    return tuple(found.values())


def algorithm(document: Node, findings: Findings) -> Algorithm | None:
    return _choice(document, ALGORITHM, Algorithm, findings)


def all_unhealthy(document: Node, findings: Findings) -> AllUnhealthy:
    return _choice(document, ALL_UNHEALTHY, AllUnhealthy, findings) or AllUnhealthy.REFUSE


def weight(document: Node, findings: Findings) -> int:
    node = _annotation(document, WEIGHT)
    if node is None:
        return 1
    text: str = node.value
    if not (text.isascii() and text.isdecimal()) or int(text) > MOST_WEIGHT:
        findings.fault(node, f'{WEIGHT} "{text}" must be a number from 0 to {MOST_WEIGHT}; 0: no new flows')
        return 1
    return int(text)


def health_check(document: Node, findings: Findings) -> HealthCheck | None:
    node = _annotation(document, HEALTH_CHECK)
    if node is None:
        return None
    said = _mapping(node, findings)
    found = HealthCheck()
    for field, value in said.items():
        found = _with(found, field, value, node, findings)
    if found.timeout_s > found.interval_s:
        findings.fault(
            node,
            f"{HEALTH_CHECK}: a timeout of {found.timeout_s:g} s is longer than {found.interval_s:g} s, its interval",
        )
    if "path" in said and found.kind is not HealthKind.HTTP:
        findings.fault(node, f"{HEALTH_CHECK}: a path is for type: http")
    return found


def _mapping(node: Node, findings: Findings) -> dict[str, Any]:
    try:
        parsed = documents.parse(node.value.encode())
    except documents.ParseError as error:
        findings.fault(node, f"{HEALTH_CHECK}: {error.finding.message}")
        return {}
    if len(parsed) != 1 or not isinstance(parsed[0].value, dict):
        findings.fault(node, f"{HEALTH_CHECK} must be a mapping: {{type: http, path: /healthz, interval: 5}}")
        return {}
    return parsed[0].value


def _with(found: HealthCheck, field: str, value: Any, node: Node, findings: Findings) -> HealthCheck:
    if field == "type" and value in [one.value for one in HealthKind]:
        return replace(found, kind=HealthKind(value))
    if (
        field == "path"
        and isinstance(value, str)
        and value.startswith("/")
        and value.isprintable()
        and " " not in value
    ):
        return replace(found, path=value)
    if field in _NUMBERS:
        name, least, most = _NUMBERS[field]
        whole = field in _WHOLE
        if type(value) in ((int,) if whole else (int, float)) and least <= value <= most:
            changed: dict[str, Any] = {name: value if whole else float(value)}
            return replace(found, **changed)
        findings.fault(node, f"{HEALTH_CHECK}: {field} must be a {'whole ' * whole}number from {least:g} to {most:g}")
    elif field in _FIELDS:
        allowed = "tcp or http" if field == "type" else "a path that begins with / and has no spaces"
        findings.fault(node, f"{HEALTH_CHECK}: {field} must be {allowed}")
    else:
        findings.fault(node, f'{HEALTH_CHECK} has no field "{field}": {nearest(field, _FIELDS)}')
    return found


def _choice(document: Node, name: str, kind: type[Choice], findings: Findings) -> Choice | None:
    node = _annotation(document, name)
    if node is None:
        return None
    try:
        return kind(node.value)
    except ValueError:
        findings.fault(node, f'{name} "{node.value}" must be {" or ".join(str(one.value) for one in kind)}')
        return None


def _annotation(document: Node, name: str) -> Node | None:
    return document.get("metadata", "annotations", name)
