"""Cilium rules: what its parser refuses, one function for each concern.

Source: cilium/cilium pkg/policy/api/rule_validation.go (Rule.Sanitize). What converting a rule finds out anyway (CIDRs,
ports, labels, entities) is reported there.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.source import l7
from reconciler.source.node import Findings, Node

SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
MAX_PORTS = 40
MAX_ICMP_FIELDS = 40

PEER_FIELDS = {
    "ingress": ("fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromGroups", "fromNodes"),
    "egress": (
        "toEndpoints",
        "toCIDR",
        "toCIDRSet",
        "toEntities",
        "toGroups",
        "toNodes",
        "toServices",
        "toFQDNs",
    ),
}


def direction(section: str) -> str:
    return section.removesuffix("Deny")


def items(rule: Node) -> Iterator[tuple[str, int, Node]]:
    """Section, index and node of every entry, in the order of `SECTIONS`."""
    for section in SECTIONS:
        for index, item in enumerate(rule.items(section)):
            yield section, index, item


def check(rule: Node, *, cluster_wide: bool, findings: Findings) -> None:
    """Everything below, for one rule."""
    selector_faults(rule, findings, cluster_wide=cluster_wide)
    section_faults(rule, findings)
    for section, _, item in items(rule):
        peer_faults(direction(section), item, findings)
        port_faults(section, item, findings)
        icmp_faults(item, findings)
        for name in item.items("toFQDNs"):
            l7.check_dns_name(name, findings)
        if rule.get("nodeSelector") is not None:
            node_rule_faults(item, findings)


def selector_faults(rule: Node, findings: Findings, *, cluster_wide: bool) -> None:
    workloads, nodes = rule.get("endpointSelector"), rule.get("nodeSelector")
    if workloads is None and nodes is None:
        wanted = "endpointSelector or nodeSelector" if cluster_wide else "endpointSelector"
        findings.fault(rule, f"the rule has no {wanted}; {{}} selects everything")
    elif workloads is not None and nodes is not None:
        findings.fault(rule.key_place("nodeSelector"), "endpointSelector and nodeSelector exclude each other")
    elif nodes is not None and not cluster_wide:
        findings.fault(rule.key_place("nodeSelector"), "nodeSelector belongs in a CiliumClusterwideNetworkPolicy only")


def section_faults(rule: Node, findings: Findings) -> None:
    """A rule without entries would be a silent no-op, and has been the cause of outages."""
    if not any(rule.items(section) for section in SECTIONS):
        findings.fault(
            rule,
            f"the rule has no entry in any of {', '.join(SECTIONS)} and does nothing; "
            "`ingress: [{}]` denies all that comes in",
        )


def peer_faults(way: str, item: Node, findings: Findings) -> None:
    used = [field for field in PEER_FIELDS[way] if item.items(field)]
    for other in used[1:]:
        findings.fault(
            item.key_place(other), f"{used[0]} and {other} cannot stand in one entry: write an entry for each"
        )
    for field in ("fromCIDRSet", "toCIDRSet"):
        for entry in item.items(field):
            if not any(entry.get(form) for form in ("cidr", "cidrGroupRef", "cidrGroupSelector")):
                findings.fault(entry, "one of cidr, cidrGroupRef and cidrGroupSelector is needed")


def port_faults(section: str, item: Node, findings: Findings) -> None:
    for entry in item.items("toPorts"):
        ports = entry.items("ports")
        if len(ports) > MAX_PORTS:
            findings.fault(entry.key_place("ports"), f"{len(ports)} ports in one entry, at most {MAX_PORTS}")
        l7.check_ports(entry, ingress=direction(section) == "ingress", findings=findings)


def icmp_faults(item: Node, findings: Findings) -> None:
    if item.items("icmps") and item.items("toPorts"):
        findings.fault(item.key_place("icmps"), "icmps and toPorts cannot stand in one entry: write an entry for each")
    for entry in item.items("icmps"):
        if len(entry.items("fields")) > MAX_ICMP_FIELDS:
            findings.fault(entry.key_place("fields"), f"more than {MAX_ICMP_FIELDS} types in one entry")


def node_rule_faults(item: Node, findings: Findings) -> None:
    for entry in item.items("toPorts"):
        rules = entry.get("rules")
        for kind in ("http", "kafka", "l7"):
            if rules is not None and rules.items(kind):
                findings.fault(rules.key_place(kind), f"a policy for nodes cannot have rules on {kind}")
