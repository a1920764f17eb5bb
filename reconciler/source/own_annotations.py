"""Annotations of ours: which there are, and on which kinds they mean something.

Those of others are theirs. An unknown one of ours is a fault, as an unknown field is: it would say nothing, silently.
"""

from __future__ import annotations

from reconciler.source import balancing, on_trial
from reconciler.source.node import Findings, Node
from reconciler.source.phrases import nearest

_PREFIX = "plumbline/"
_KINDS = {
    balancing.ALGORITHM: ("Service",),
    balancing.HEALTH_CHECK: ("Service",),
    balancing.ALL_UNHEALTHY: ("Service",),
    balancing.WEIGHT: ("EndpointSlice", "Workload"),
    on_trial.ANNOTATION: ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"),
}


def check(document: Node, kind: str, findings: Findings) -> None:
    node = document.get("metadata", "annotations")
    for name in node.keys if node is not None else ():
        assert node is not None
        if not name.startswith(_PREFIX):
            continue
        if name not in _KINDS:
            findings.fault(node.key_place(name), f'unknown annotation "{name}"; {nearest(name, _KINDS)}')
        elif kind not in _KINDS[name]:
            findings.fault(
                node.key_place(name), f"{name} means nothing on a {kind}: it is for {', '.join(_KINDS[name])}"
            )
