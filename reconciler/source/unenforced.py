"""Fields that are valid in the public formats and that Plumbline does not enforce yet.

They are refused, never ignored. Enforcing one means deleting its line here. A verdict can be had on more than that: a
rule on what is said is `redirected`, and a peer that nothing resolves is nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.source.node import Findings, Node
from reconciler.source.ports import PORTLESS

# Path below a rule -> what it is. `*` is any key or any entry of a list. A list counts once it has an entry.
_FIELDS = {
    "log": "a text for flow records",
    "*.*.fromGroups": "groups of a cloud provider",
    "*.*.toGroups": "groups of a cloud provider",
    "*.*.fromNodes": "selecting nodes as peers",
    "*.*.toNodes": "selecting nodes as peers",
    "*.*.toFQDNs": "selecting peers by DNS name",
    "*.*.authentication": "mutual authentication",
    "*.*.auth": "mutual authentication",
    "*.*.fromCIDRSet.*.cidrGroupRef": "a CiliumCIDRGroup",
    "*.*.fromCIDRSet.*.cidrGroupSelector": "a CiliumCIDRGroup",
    "*.*.toCIDRSet.*.cidrGroupRef": "a CiliumCIDRGroup",
    "*.*.toCIDRSet.*.cidrGroupSelector": "a CiliumCIDRGroup",
    "*.*.toPorts.*.rules.http": "rules on HTTP",
    "*.*.toPorts.*.rules.kafka": "rules on Kafka",
    "*.*.toPorts.*.rules.dns": "rules on DNS",
    "*.*.toPorts.*.rules.l7": "rules of a parser",
    "*.*.toPorts.*.rules.l7proto": "rules of a parser",
    "*.*.toPorts.*.serverNames": "TLS server names",
    "*.*.toPorts.*.terminatingTLS": "terminating TLS",
    "*.*.toPorts.*.originatingTLS": "originating TLS",
    "*.*.toPorts.*.listener": "a custom Envoy listener",
}
ALL = frozenset(_FIELDS)  # rows have a verdict on them, though no host enforces it

# Path of a scalar -> its values, in upper case, that are not enforced.
_VALUES = {"*.*.toPorts.*.ports.*.protocol": PORTLESS}
_SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
# In these an empty list still means something to a proxy.
_EVEN_EMPTY = ("http", "kafka", "dns", "l7", "l7proto")


def refuse(rule: Node, findings: Findings, accepted: frozenset[str] = frozenset()) -> None:
    """A fault for each field of a Cilium rule that is valid and neither enforced nor `accepted`."""
    for path, words in _FIELDS.items():
        if path in accepted:
            continue
        *above, name = path.split(".")
        for parent in _reach(rule, above):
            node = parent.get(name)
            if node is not None and (node.value or name in _EVEN_EMPTY or isinstance(node.value, dict)):
                findings.fault(
                    parent.key_place(name), f"{name} ({words}) is valid, but Plumbline does not enforce it yet"
                )
    for path, values in _VALUES.items() if not accepted else ():
        for node in _reach(rule, path.split(".")):
            if isinstance(node.value, str) and node.value.upper() in values:
                findings.fault(node, f"{node.value} is valid, but Plumbline does not enforce it yet")


def _reach(node: Node, path: list[str]) -> Iterator[Node]:
    if not path:
        yield node
        return
    step, rest = path[0], path[1:]
    if step == "*":
        parts = node.parts if isinstance(node.parts, list) else [part for key in _SECTIONS if (part := node.get(key))]
        for part in parts:
            yield from _reach(part, rest)
    elif (part := node.get(step)) is not None:
        yield from _reach(part, rest)
