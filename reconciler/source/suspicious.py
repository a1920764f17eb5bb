"""What is valid in a Cilium rule and hardly ever meant: lists that are there and empty."""

from __future__ import annotations

from reconciler.source import cilium_rules
from reconciler.source.node import Findings, Node

_PEERS = {"ingress": "from", "egress": "to"}
_MOVES = {"ingress": "comes in", "egress": "goes out"}


def warn(rule: Node, findings: Findings) -> None:
    """Warnings on a rule without faults."""
    _empty_sections(rule, findings)
    for section, _, item in cilium_rules.items(rule):
        _empty_peers(item, _PEERS[cilium_rules.direction(section)], findings)


def _empty_sections(rule: Node, findings: Findings) -> None:
    """An empty section is as good as none: nothing is isolated by it."""
    for section in cilium_rules.SECTIONS:
        way = cilium_rules.direction(section)
        if rule.read(section) != [] or rule.read("enableDefaultDeny", way):
            continue
        if section.endswith("Deny"):
            findings.warn(rule.key_place(section), f"{section} is empty and denies nothing: leave it out")
        elif not rule.items(f"{way}Deny"):
            findings.warn(
                rule.key_place(section),
                f"{section} is empty and does nothing: `{section}: [{{}}]` denies all that {_MOVES[way]}",
            )


def _empty_peers(item: Node, prefix: str, findings: Findings) -> None:
    for field, node in item.members():
        if field.startswith(prefix) and field not in ("toPorts", f"{prefix}Requires") and node.value == []:
            findings.warn(
                item.key_place(field),
                f"{field} is empty: the entry matches nobody, whatever else it says; "
                f"anybody is `{prefix}Entities: [all]`",
            )
