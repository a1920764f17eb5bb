"""Workload and Namespace documents."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from reconciler.model.cluster import NamedPort, Namespace, Workload
from reconciler.model.origin import Origin
from reconciler.model.policy import PROTOCOLS
from reconciler.source import addresses, balancing, metadata, ports
from reconciler.source.cgroups import cgroup
from reconciler.source.cluster import Places
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node

NETNS_DIRECTORY = "/run/netns"  # where ip-netns(8) keeps names
# A name, alone or in that directory, or the namespace of a process. Nothing else on a host is for a repository to name.
_NETNS = re.compile(r"(?:(?:/var)?/run/netns/)?(?P<name>(?!\.\.?\Z)[^/]+)|/proc/[1-9][0-9]*/ns/net")
NAME_LABEL = "kubernetes.io/metadata.name"  # every namespace has it (Kubernetes KEP 2161)


def namespace(document: Node, identity: Identity, findings: Findings) -> tuple[Namespace, Places]:
    labels = metadata.labels(document, findings)
    if labels.get(NAME_LABEL, identity.name) != identity.name:
        findings.fault(
            document.place_of("metadata", "labels", NAME_LABEL),
            f"{NAME_LABEL} is the namespace's name, {identity.name}",
        )
    origin = Origin("", document.place.line, identity.kind, identity.name, "")
    return Namespace(identity.name, named(identity.name, labels), origin), {}


def named(name: str, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a namespace with the one that its name gives it."""
    return {NAME_LABEL: name, **labels}


def workload(document: Node, identity: Identity, findings: Findings) -> tuple[Workload, Places]:
    """The workload, and the places of `node`, `netns` and its addresses (`address4`, `address6`)."""
    spec = document.get("spec")
    assert spec is not None  # its schema requires it
    metadata.check_own_labels(document, findings)
    fixed = addresses.per_family(spec.items("addresses"), findings, "the workload")
    address4, address6 = fixed.get(4), fixed.get(6)
    interface = spec.get("interface")
    places = {field: spec.place_of(field) for field in ("node", "netns")}
    places |= {f"address{family}": node.place for family, (_, node) in fixed.items()}
    return Workload(
        namespace=identity.namespace,
        name=identity.name,
        node=sys.intern(spec.read("node")),  # which many workloads share
        origin=Origin("", document.place.line, identity.kind, f"{identity.namespace}/{identity.name}", ""),
        netns=_netns(spec, findings),
        interface=addresses.interface(interface, findings) if interface else "eth0",
        labels=metadata.labels(document, findings),
        ports=_ports(spec, findings),
        address4=address4[0] if address4 and isinstance(address4[0], IPv4Address) else None,
        address6=address6[0] if address6 and isinstance(address6[0], IPv6Address) else None,
        audit=bool(spec.read("policyAuditMode", default=False)),
        weight=balancing.weight(document, findings),
        cgroup=cgroup(spec, findings, root=False),
    ), places


def _netns(spec: Node, findings: Findings) -> str:
    text: str = spec.read("netns")
    form = _NETNS.fullmatch(text)
    if not form or not text.isprintable():
        wanted = f"a name below {NETNS_DIRECTORY} or /proc/PID/ns/net"
        findings.fault(spec.place_of("netns"), f'netns "{text}" must be {wanted}')
        return text
    return f"{NETNS_DIRECTORY}/{form['name']}" if form["name"] else text


def _ports(spec: Node, findings: Findings) -> tuple[NamedPort, ...]:
    found: dict[str, NamedPort] = {}
    for node in spec.items("ports"):
        name = node.read("name")
        if not ports.is_name(name):
            findings.fault(node.place_of("name"), f'"{name}" is not {ports.NAME_FORM}')
        if name in found:
            findings.fault(node.place_of("name"), f'two ports are called "{name}"')
        found[name] = NamedPort(name, int(node.read("port")), PROTOCOLS[node.read("protocol", default="TCP")])
    return tuple(found.values())
