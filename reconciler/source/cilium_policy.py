"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy as policy rules, one for each `spec`.

Origins carry neither path nor commit yet, and `cluster` peers no name of the cluster: see `stamp`.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model.origin import Origin
from reconciler.model.policy import Peer, PolicyRule, RuleItem
from reconciler.model.policy import Scope as Subjects
from reconciler.source import cilium_rules, peers, ports, selectors, unenforced
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node
from reconciler.source.ports import Matches

_PREFIX = {"ingress": "from", "egress": "to"}


def rules(document: Node, identity: Identity, findings: Findings) -> tuple[PolicyRule, ...]:
    """The rules of a document that its schema accepts."""
    found = []
    for prefix, rule in _specs(document):
        before = len(findings.faults)
        cilium_rules.check(rule, cluster_wide=not identity.namespace, findings=findings)
        origin = _origin(rule if prefix else document, identity)
        found.append(_rule(rule, prefix, origin, identity, findings))
        if len(findings.faults) == before:
            unenforced.refuse(rule, findings)
    if not found:
        findings.fault(document, f"the {identity.kind} has neither spec nor specs")
    return tuple(found)


def _specs(document: Node) -> Iterator[tuple[str, Node]]:
    """What stands before the names of its entries, and the rule."""
    if (spec := document.get("spec")) is not None:
        yield "", spec
    for index, rule in enumerate(document.items("specs")):
        yield f"specs[{index}].", rule


def _rule(rule: Node, prefix: str, origin: Origin, identity: Identity, findings: Findings) -> PolicyRule:
    selector = rule.get("endpointSelector") or rule.get("nodeSelector")
    subject = peers.subject(selector or rule, identity.namespace, findings)
    scope = peers.Scope(identity.namespace, selectors.names_reserved(subject.requirements, "init"))
    found = [
        (
            cilium_rules.direction(section),
            _item(item, section, f"{prefix}{section}[{index}]", scope, identity, findings),
        )
        for section, index, item in cilium_rules.items(rule)
    ]
    requires = [
        (cilium_rules.direction(section), selector)
        for section, _, item in cilium_rules.items(rule)
        for selector in peers.required(item, _PREFIX[cilium_rules.direction(section)], scope, findings)
    ]
    return PolicyRule(
        kind=identity.kind,
        namespace=identity.namespace,
        name=identity.name,
        subject=subject,
        origin=origin,
        scope=Subjects.NODES if rule.get("nodeSelector") else Subjects.WORKLOADS,
        ingress=tuple(item for way, item in found if way == "ingress"),
        egress=tuple(item for way, item in found if way == "egress"),
        isolates_ingress=_isolates(rule, "ingress"),
        isolates_egress=_isolates(rule, "egress"),
        requires_ingress=tuple(selector for way, selector in requires if way == "ingress"),
        requires_egress=tuple(selector for way, selector in requires if way == "egress"),
    )


def _isolates(rule: Node, way: str) -> bool:
    has_entries = bool(rule.items(way) or rule.items(f"{way}Deny"))
    return bool(rule.read("enableDefaultDeny", way, default=has_entries))


def _item(item: Node, section: str, field: str, scope: peers.Scope, identity: Identity, findings: Findings) -> RuleItem:
    prefix = _PREFIX[cilium_rules.direction(section)]
    who, what = peers.of_item(item, prefix, scope, findings), _ports(item, findings)
    if what == () and item.items("toPorts"):
        findings.warn(item.key_place("toPorts"), "toPorts names no port, so the entry matches nothing")
    return RuleItem(
        field=field,
        peers=_peers(who, what),
        ports=what,
        origin=_origin(item, identity),
        deny=section.endswith("Deny"),
    )


def _peers(who: tuple[Peer, ...] | None, what: Matches | None) -> tuple[Peer, ...] | None:
    """No field of peers means anybody if ports are named, and nobody if nothing is."""
    if what == ():
        return ()
    return () if who is None and what is None else who


def _ports(item: Node, findings: Findings) -> Matches | None:
    """None is any port of any protocol; () is none at all."""
    entries, messages = item.items("toPorts"), item.items("icmps")
    if not entries and not messages:
        return None
    named = ports.cilium((port for entry in entries for port in entry.items("ports")), findings)
    return (*named, *ports.icmp(messages, findings))


def _origin(node: Node, identity: Identity) -> Origin:
    name = f"{identity.namespace}/{identity.name}" if identity.namespace else identity.name
    return Origin("", node.place.line, identity.kind, name, "")
