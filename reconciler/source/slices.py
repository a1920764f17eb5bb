"""EndpointSlice documents.

Source of what is refused: Kubernetes, pkg/apis/discovery/validation/validation.go (ValidateEndpointSlice).
"""

from __future__ import annotations

from reconciler.model.origin import Origin
from reconciler.model.policy import PROTOCOLS
from reconciler.model.service import EndpointSlice, SliceEndpoint, SlicePort
from reconciler.source import addresses, balancing, metadata
from reconciler.source.addresses import Address
from reconciler.source.cluster import Places
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node

SERVICE_LABEL = "kubernetes.io/service-name"
_FAMILIES = {"IPv4": 4, "IPv6": 6}  # addressType -> family; the third, FQDN, has no addresses


def endpoint_slice(document: Node, identity: Identity, findings: Findings) -> tuple[EndpointSlice, Places]:
    """The slice, and the place of the name of its service (`service`)."""
    labels = metadata.labels(document, findings)
    kind: str = document.read("addressType")
    if SERVICE_LABEL not in labels:
        findings.warn(document.place_of("metadata"), f"without the label {SERVICE_LABEL} no Service has this slice")
    if kind not in _FAMILIES:
        findings.warn(document.place_of("addressType"), "names of type FQDN are not looked up: no policy finds them")
    return EndpointSlice(
        namespace=identity.namespace,
        name=identity.name,
        origin=Origin("", document.place.line, identity.kind, f"{identity.namespace}/{identity.name}", ""),
        service=labels.get(SERVICE_LABEL, ""),
        labels=labels,
        endpoints=tuple(_endpoint(node, kind, findings) for node in document.items("endpoints")),
        ports=_ports(document, findings),
        weight=balancing.weight(document, findings),
    ), {"service": document.place_of("metadata", "labels", SERVICE_LABEL)}


def _endpoint(node: Node, kind: str, findings: Findings) -> SliceEndpoint:
    conditions = node.get("conditions") or node
    ready = bool(conditions.read("ready", default=True))
    target = node.get("targetRef")
    parts = [target.read(field, default="") for field in ("kind", "namespace", "name")] if target else []
    return SliceEndpoint(
        addresses=_addresses(node, kind, findings),
        ready=ready,
        serving=bool(conditions.read("serving", default=ready)),
        terminating=bool(conditions.read("terminating", default=False)),
        hostname=node.read("hostname", default=""),
        node=node.read("nodeName", default=""),
        zone=node.read("zone", default=""),
        target="/".join(filter(None, parts)),
    )


def _addresses(node: Node, kind: str, findings: Findings) -> tuple[Address, ...]:
    """None of a slice of names."""
    found: list[Address] = []
    for part in node.items("addresses") if kind in _FAMILIES else ():
        address = addresses.address(part, findings)
        if address is None:
            continue
        if address.version != _FAMILIES[kind]:
            findings.fault(part, f"{address} is not of the slice's addressType, {kind}: write a slice for each family")
        elif addresses.unusable(address):
            findings.fault(part, f"{address} cannot be an endpoint: it is {addresses.UNUSABLE}")
        found.append(address)
    return tuple(found)


def _ports(document: Node, findings: Findings) -> tuple[SlicePort, ...]:
    found: dict[str, SlicePort] = {}
    for node in document.items("ports"):
        name: str = node.read("name", default="")
        if name in found:
            findings.fault(node.place_of("name"), f'two ports are called "{name}"')
        found[name] = SlicePort(
            name,
            PROTOCOLS[node.read("protocol", default="TCP")],
            int(node.read("port", default=0)),
            node.read("appProtocol", default=""),
        )
    return tuple(found.values())
