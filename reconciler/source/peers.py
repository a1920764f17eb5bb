"""Peers of policies: selectors with their namespace worked in, entities, CIDRs.

What a kind adds to a selector is Cilium's (pkg/k8s/apis/cilium.io/utils/utils.go, pkg/policy/api/entity.go) for its own
kinds, and Kubernetes' for NetworkPolicy.
"""

from __future__ import annotations

from ipaddress import collapse_addresses
from typing import NamedTuple

from reconciler.model.policy import CidrPeer, EndpointPeer, Peer, ServicePeer
from reconciler.model.selector import Selector
from reconciler.source import addresses, selectors
from reconciler.source.node import Findings, Node
from reconciler.source.phrases import nearest
from reconciler.source.selectors import Requirements

# Stands for the cluster's own workloads until the name of the cluster is known; no manifest can hold a NUL.
OWN_CLUSTER = EndpointPeer(selectors.own_cluster("\0"))

_RESERVED = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
_FAMILIES = ("world-ipv4", "world-ipv6")
ENTITIES: dict[str, tuple[EndpointPeer, ...]] = {
    "all": (EndpointPeer(Selector()),),
    "none": (),
    "world": tuple(EndpointPeer(selectors.reserved(name)) for name in ("world", *_FAMILIES)),
    **{name: (EndpointPeer(selectors.reserved(name)),) for name in (*_FAMILIES, *_RESERVED)},
    "cluster": (*(EndpointPeer(selectors.reserved(name)) for name in _RESERVED), OWN_CLUSTER),
}


class Scope(NamedTuple):
    """Where the selectors of a Cilium rule look: its namespace ('' if clusterwide)."""

    namespace: str
    selects_init: bool  # its subjects are workloads that have no labels yet
    as_written: bool = False  # a rule as Cilium's agent has it: nothing is added to its selectors


def subject(node: Node, scope_namespace: str, findings: Findings) -> Selector:
    """The workloads that a Cilium rule is for; in a namespaced policy they never leave its namespace."""
    requirements = selectors.cilium(node, findings)
    if not scope_namespace:
        return Selector(requirements)
    for requirement in requirements:
        pinned = selectors.pins_namespace(requirement)
        if pinned is not None and scope_namespace not in pinned:
            findings.fault(
                node,
                f"endpointSelector names the namespace {', '.join(sorted(pinned))}, but the policy is for "
                f"{scope_namespace}: a CiliumNetworkPolicy selects workloads of its own namespace only",
            )
    return Selector((*requirements, selectors.in_namespace(scope_namespace)))


def scoped(requirements: Requirements, scope: Scope, *, keep_reserved: bool = True) -> Selector:
    """A peer's selector with what its policy adds to it."""
    if scope.as_written:
        return Selector(requirements)
    if (keep_reserved and selectors.names_reserved(requirements)) or selectors.names_namespace(requirements):
        return Selector(requirements)
    if not scope.namespace:
        return Selector(requirements if scope.selects_init else (*requirements, selectors.IN_A_NAMESPACE))
    if selectors.names_namespace_labels(requirements):
        return Selector(requirements)
    return Selector((*requirements, selectors.in_namespace(scope.namespace)))


def of_item(item: Node, prefix: str, scope: Scope, findings: Findings) -> tuple[Peer, ...] | None:
    """The peers of an entry of a Cilium rule; `prefix` is `from` or `to`.

    None: no field of peers is there. A field that is there and empty is nobody, whatever else is there.
    """
    found: list[Peer] = []
    present = empty = False
    for field, node in item.members():
        if not field.startswith(prefix) or field in ("toPorts", f"{prefix}Requires"):
            continue
        present = True
        empty = empty or not node.parts
        found += _of_field(field.removeprefix(prefix), node, scope, findings)
    if not present:
        return None
    return () if empty else tuple(dict.fromkeys(found))


def _of_field(field: str, node: Node, scope: Scope, findings: Findings) -> list[Peer]:
    entries = node.parts if isinstance(node.parts, list) else []
    found: list[Peer] = []
    for entry in entries:
        if field == "Endpoints":
            selector = scoped(selectors.cilium(entry, findings), scope)
            if selectors.names_reserved(selector.requirements, "world"):
                findings.warn(
                    entry, "reserved:world is no label of an address, its family's is: write the entity world"
                )
            found.append(EndpointPeer(selector))
        elif field == "Entities":
            found += _entity(entry, findings)
        elif field == "CIDR":
            network = addresses.network(entry, findings, bare=True, host_bits=True)
            found += [CidrPeer(network)] if network else []
        elif field == "CIDRSet" and entry.get("cidr"):
            found += cidr(entry, findings)
        elif field == "Services":
            found += _service(entry, findings)
    return found


def _entity(node: Node, findings: Findings) -> tuple[EndpointPeer, ...]:
    if node.value not in ENTITIES:
        findings.fault(node, f'unknown entity "{node.value}"; {nearest(node.value, ENTITIES)}')
        return ()
    return ENTITIES[node.value]


def _service(node: Node, findings: Findings) -> list[Peer]:
    """As Cilium's pkg/policy/k8s/service.go: a selector wins over a name, and without a namespace any is meant."""
    if (by_labels := node.get("k8sServiceSelector")) is not None:
        wanted = by_labels.get("selector")
        assert wanted is not None  # its schema requires it
        selector = Selector(selectors.cilium(wanted, findings))
        return [ServicePeer(by_labels.read("namespace", default=""), selector=selector)]
    by_name = node.get("k8sService")
    if by_name is None or not by_name.read("serviceName"):
        findings.warn(node, "no service is named: write k8sService.serviceName or k8sServiceSelector")
        return []
    return [ServicePeer(by_name.read("namespace", default=""), by_name.read("serviceName"))]


def cidr(node: Node, findings: Findings, *, matches_workloads: bool = False) -> list[CidrPeer]:
    """A mapping with `cidr` and `except`; each exception must lie inside."""
    whole = node.get("cidr")
    network = addresses.network(whole, findings, host_bits=True) if whole else None
    if network is None:
        return []
    excepts = []
    for entry in node.items("except"):
        part = addresses.network(entry, findings, host_bits=True)
        if part is None:
            continue
        if part.version != network.version or not part.subnet_of(network):  # type: ignore[arg-type]
            findings.fault(entry, f"except {entry.value} is not inside cidr {network}")
        excepts.append(part)
    if network in collapse_addresses(part for part in excepts if part.version == network.version):  # type: ignore[type-var]
        findings.warn(node.key_place("except"), f"except leaves nothing of {network}: the entry matches nobody")
    return [CidrPeer(network, tuple(excepts), matches_workloads)]


def required(item: Node, prefix: str, scope: Scope, findings: Findings) -> tuple[Selector, ...]:
    """`fromRequires` or `toRequires` of an entry."""
    return tuple(
        scoped(selectors.cilium(entry, findings), scope, keep_reserved=False)
        for entry in item.items(f"{prefix}Requires")
    )
