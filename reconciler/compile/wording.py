"""Selectors in the few words that a warning has for them."""

from __future__ import annotations

from reconciler.model.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from reconciler.model.selector import ANY_SOURCE, Operator, Requirement, Selector

_PLAIN_SOURCES = (ANY_SOURCE, "k8s", "reserved")
_SHORT = {NAMESPACE_KEY: "namespace", CLUSTER_KEY: "cluster"}


def selector(one: Selector) -> str:
    """`app=web, tier in (a, b), namespace=shop`."""
    return ", ".join(map(requirement, one.requirements)) or "anything"


def requirement(one: Requirement) -> str:
    key, values = _key(one), sorted(one.values)
    if one.operator is Operator.EXISTS or values == [""]:
        return key if one.operator in (Operator.EXISTS, Operator.IN) else f"not {key}"
    if one.operator is Operator.DOES_NOT_EXIST:
        return f"no {key}"
    if len(values) == 1:
        return f"{key}{'=' if one.operator is Operator.IN else '!='}{values[0]}"
    return f"{key} {'in' if one.operator is Operator.IN else 'not in'} ({', '.join(values)})"


def _key(one: Requirement) -> str:
    """What everybody knows goes by its short name."""
    if one.key.startswith(NAMESPACE_LABELS_PREFIX):
        return f"namespace's {one.key.removeprefix(NAMESPACE_LABELS_PREFIX)}"
    key = _SHORT.get(one.key, one.key)
    return key if one.source in _PLAIN_SOURCES else f"{one.source}:{key}"
