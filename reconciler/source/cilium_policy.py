"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy as policy rules, one for each `spec`.

Origins carry neither path nor commit yet, and `cluster` peers no name of the cluster: see `stamp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reconciler.model.origin import Origin
from reconciler.model.policy import Peer, PolicyRule, RuleItem
from reconciler.model.policy import Scope as Subjects
from reconciler.source import cilium_rules, l7, peers, ports, selectors, suspicious, unenforced
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node
from reconciler.source.on_trial import is_on_trial
from reconciler.source.ports import Matches

_PREFIX = {"ingress": "from", "egress": "to"}


def rules(
    document: Node,
    identity: Identity,
    findings: Findings,
    accepted: frozenset[str] = frozenset(),
    *,
    as_written: bool = False,
) -> tuple[PolicyRule, ...]:
    """The rules of a document that its schema accepts.

    `accepted`: fields of `unenforced` that are no fault. `as_written`: nothing is added to selectors (`peers.Scope`).
    """
    found = []
    audit = is_on_trial(document, findings)
    for prefix, rule in _specs(document):
        before = len(findings.faults)
        cilium_rules.check(rule, cluster_wide=not identity.namespace, findings=findings)
        origin = _origin(rule if prefix else document, identity)
        made = _rule(rule, prefix, origin, identity, findings, as_written=as_written)
        found.append(replace(made, audit=audit))
        if len(findings.faults) == before:
            unenforced.refuse(rule, findings, accepted)
            suspicious.warn(rule, findings)
    if not found:
        findings.fault(document, f"the {identity.kind} has neither spec nor specs")
    return tuple(found)


def _specs(document: Node) -> Iterator[tuple[str, Node]]:
    """What stands before the names of its entries, and the rule."""
    if (spec := document.get("spec")) is not None:
        yield "", spec
    for index, rule in enumerate(document.items("specs")):
        yield f"specs[{index}].", rule


def _rule(
    rule: Node, prefix: str, origin: Origin, identity: Identity, findings: Findings, *, as_written: bool
) -> PolicyRule:
    selector = rule.get("endpointSelector") or rule.get("nodeSelector")
    subject = peers.subject(selector or rule, identity.namespace, findings)
    scope = peers.Scope(identity.namespace, selectors.names_reserved(subject.requirements, "init"), as_written)
    found = [
        (cilium_rules.direction(section), entry)
        for section, index, item in cilium_rules.items(rule)
        for entry in _items(item, section, f"{prefix}{section}[{index}]", scope, identity, findings)
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


def _items(
    item: Node, section: str, field: str, scope: peers.Scope, identity: Identity, findings: Findings
) -> Iterator[RuleItem]:
    """One, and one more for each entry of `toPorts` that a proxy has a say in (`ingress[0].toPorts[1]`)."""
    who = peers.of_item(item, _PREFIX[cilium_rules.direction(section)], scope, findings)
    deny, origin = section.endswith("Deny"), _origin(item, identity)
    plain: list[Node] = []
    for index, entry in enumerate(item.items("toPorts")):
        if rules := l7.of_ports(entry):
            asked = ports.cilium(entry.items("ports"), findings)
            yield RuleItem(f"{field}.toPorts[{index}]", _peers(who, asked), asked, origin, deny, rules)
        else:
            plain.append(entry)
    if plain or not item.items("toPorts"):
        what = _ports(plain, item.items("icmps"), findings)
        if what == () and plain:
            findings.warn(item.key_place("toPorts"), "toPorts names no port, so the entry matches nothing")
        yield RuleItem(field, _peers(who, what), what, origin, deny)


def _peers(who: tuple[Peer, ...] | None, what: Matches | None) -> tuple[Peer, ...] | None:
    """No field of peers means anybody if ports are named, and nobody if nothing is."""
    if what == ():
        return ()
    return () if who is None and what is None else who


def _ports(entries: list[Node], messages: list[Node], findings: Findings) -> Matches | None:
    """None is any port of any protocol; () is none at all."""
    if not entries and not messages:
        return None
    named = ports.cilium((port for entry in entries for port in entry.items("ports")), findings)
    return (*named, *ports.icmp(messages, findings))


def _origin(node: Node, identity: Identity) -> Origin:
    name = f"{identity.namespace}/{identity.name}" if identity.namespace else identity.name
    return Origin("", node.place.line, identity.kind, name, "", node.place.column)
