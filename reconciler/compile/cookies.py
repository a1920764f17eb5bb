"""Cookies: the number by which a policy row, and every event it causes, names the entry that it comes from.

A cookie is a hash of what the entry is called (kind, namespace, name, field), so it survives commits, restarts and
reordered files. It is never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.compile.numbering import number
from reconciler.model.cluster import Cluster
from reconciler.model.origin import Origin
from reconciler.model.policy import PolicyRule

COOKIES = (1 << 32) - 1

INGRESS = "ingress"
EGRESS = "egress"
ENFORCEMENT = "policy.enforcement"
ALLOW_LOCALHOST = "policy.allowLocalhost"


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """What a cookie stands for. `field` is an entry (`ingress[0]`), a direction that the rule isolates (`ingress`), or
    the setting of the `Cluster` document that decides where no rule does."""

    origin: Origin
    reference: str
    field: str


@dataclass(frozen=True, slots=True)
class Cookies:
    """`of_rule`: id() of a rule -> field -> cookie; `settings`: field of the cluster -> cookie."""

    infos: Mapping[int, RuleInfo]
    of_rule: Mapping[int, Mapping[str, int]]
    settings: Mapping[str, int]


def cookies(rules: Iterable[PolicyRule], cluster: Cluster) -> Cookies:
    """Two rules of one name (several `specs`) with the same field get different cookies, in the order of `rules`."""
    wanted: dict[str, tuple[int, RuleInfo]] = {}
    of_rule: dict[int, dict[str, int]] = {}
    for rule in rules:
        of_rule[id(rule)] = {}
        for info in _infos(rule):
            wanted[_unused(f"{info.reference} {info.field}", wanted)] = (id(rule), info)
    setting = RuleInfo(cluster.origin, f"Cluster/{cluster.name}", ENFORCEMENT)
    localhost = RuleInfo(cluster.origin, f"Cluster/{cluster.name}", ALLOW_LOCALHOST)
    wanted |= {info.field: (0, info) for info in (setting, localhost)}
    drawn = number(wanted, COOKIES)
    infos: dict[int, RuleInfo] = {}
    for name, (rule_id, info) in wanted.items():
        infos[drawn[name] + 1] = info
        of_rule.setdefault(rule_id, {})[info.field] = drawn[name] + 1
    return Cookies(infos, of_rule, of_rule.pop(0))


def _infos(rule: PolicyRule) -> Iterable[RuleInfo]:
    if rule.isolates_ingress:
        yield RuleInfo(rule.origin, rule.reference, INGRESS)
    if rule.isolates_egress:
        yield RuleInfo(rule.origin, rule.reference, EGRESS)
    for item in rule.ingress + rule.egress:
        yield RuleInfo(item.origin, rule.reference, item.field)


def _unused(name: str, taken: Mapping[str, object]) -> str:
    unused, count = name, 1
    while unused in taken:
        count += 1
        unused = f"{name} #{count}"
    return unused
