"""Kubernetes' NetworkPolicy as a policy rule.

Source of its semantics: k8s.io/api networking/v1 types.go and, for what is refused, pkg/apis/networking/validation.
Whether `ipBlock` means workloads too is a setting of the Cluster: `stamp` works it in, here it does.
"""

from __future__ import annotations

from reconciler.model.origin import Origin
from reconciler.model.policy import EndpointPeer, Peer, PolicyRule, RuleItem
from reconciler.model.selector import Selector
from reconciler.source import peers, ports, selectors
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node
from reconciler.source.on_trial import is_on_trial

_PEERS = {"ingress": "from", "egress": "to"}


def rules(document: Node, identity: Identity, findings: Findings) -> tuple[PolicyRule, ...]:
    """The one rule of a document that its schema accepts."""
    spec = document.get("spec")
    pods = spec.get("podSelector") if spec else None
    assert spec is not None  # both are required
    assert pods is not None
    types = policy_types(spec)
    own = selectors.in_namespace(identity.namespace)
    return (
        PolicyRule(
            kind=identity.kind,
            namespace=identity.namespace,
            name=identity.name,
            subject=Selector((*selectors.kubernetes(pods, findings), own)),
            origin=_origin(document, identity),
            ingress=_section(spec, "ingress", types, identity, findings),
            egress=_section(spec, "egress", types, identity, findings),
            isolates_ingress="ingress" in types,
            isolates_egress="egress" in types,
            audit=is_on_trial(document, findings),
        ),
    )


def policy_types(spec: Node) -> frozenset[str]:
    """In lower case. Absent: ingress, and egress if it has an entry (pkg/apis/networking/v1/defaults.go)."""
    if listed := spec.read("policyTypes"):
        return frozenset(name.lower() for name in listed)
    return frozenset(("ingress", "egress") if spec.items("egress") else ("ingress",))


def _section(
    spec: Node, section: str, types: frozenset[str], identity: Identity, findings: Findings
) -> tuple[RuleItem, ...]:
    """Its entries; none if policyTypes leaves the direction out: they then mean nothing."""
    found = _items(spec, section, identity, findings)
    if section in types:
        return found
    if spec.get(section) is not None and (found or not spec.read("policyTypes")):
        findings.warn(
            spec.key_place(section), f"{section} has no effect: policyTypes does not list {section.capitalize()}"
        )
    return ()


def _items(spec: Node, section: str, identity: Identity, findings: Findings) -> tuple[RuleItem, ...]:
    return tuple(
        RuleItem(
            field=f"{section}[{index}]",
            peers=tuple(
                peer for node in item.items(_PEERS[section]) for peer in _peer(node, identity.namespace, findings)
            )
            if item.items(_PEERS[section])
            else None,
            ports=ports.kubernetes(item.items("ports"), findings) if item.items("ports") else None,
            origin=_origin(item, identity),
        )
        for index, item in enumerate(spec.items(section))
    )


def _peer(node: Node, namespace: str, findings: Findings) -> list[Peer]:
    block, pods, spaces = node.get("ipBlock"), node.get("podSelector"), node.get("namespaceSelector")
    if block is not None:
        if pods is not None or spaces is not None:
            findings.fault(node, "ipBlock excludes podSelector and namespaceSelector: write two entries")
        return list(peers.cidr(block, findings, matches_workloads=True))
    if pods is None and spaces is None:
        findings.fault(node, "a peer needs one of podSelector, namespaceSelector and ipBlock")
        return []
    requirements = selectors.kubernetes(pods, findings) if pods else ()
    where = selectors.namespaces(spaces, findings) if spaces else (selectors.in_namespace(namespace),)
    return [EndpointPeer(Selector((*requirements, *where)))]


def _origin(node: Node, identity: Identity) -> Origin:
    name = f"{identity.namespace}/{identity.name}"
    return Origin("", node.place.line, identity.kind, name, "", node.place.column)
