"""Path, commit and the settings of the Cluster, worked into model values that came out of a file's bytes alone.

Every load does this to every value, so it is written for speed: about 5 us a policy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

from reconciler.model.cluster import Cluster, Namespace, Workload
from reconciler.model.cluster import Node as Host
from reconciler.model.origin import Origin
from reconciler.model.policy import CidrPeer, EndpointPeer, Peer, PolicyRule, RuleItem
from reconciler.model.policy_test import PolicyTest
from reconciler.model.prefilter import Prefilter
from reconciler.model.service import EndpointSlice, Service
from reconciler.source.peers import OWN_CLUSTER
from reconciler.source.selectors import own_cluster

Content = (
    Cluster | Host | Namespace | Workload | Service | EndpointSlice | PolicyTest | Prefilter | tuple[PolicyRule, ...]
)
Own = TypeVar("Own", Cluster, Host, Namespace, Workload, Service, EndpointSlice, PolicyTest, Prefilter)


class Settings(NamedTuple):
    """What policies need to know of their Cluster."""

    cluster: str
    ipblock_matches_workloads: bool


def is_unbound(content: Content) -> bool:
    """Whether any of its peers mean something else under other settings."""
    return isinstance(content, tuple) and any(
        _is_unbound(peer) for rule in content for item in rule.ingress + rule.egress for peer in item.peers or ()
    )


def _is_unbound(peer: Peer) -> bool:
    return peer == OWN_CLUSTER or (isinstance(peer, CidrPeer) and peer.matches_workloads)


def bind(rule: PolicyRule, settings: Settings) -> PolicyRule:
    """The rule as it is under the settings."""
    return replace(
        rule,
        ingress=tuple(_bound(item, settings) for item in rule.ingress),
        egress=tuple(_bound(item, settings) for item in rule.egress),
    )


def _bound(item: RuleItem, settings: Settings) -> RuleItem:
    if item.peers is None:
        return item
    return replace(item, peers=tuple(_bound_peer(peer, settings) for peer in item.peers))


def _bound_peer(peer: Peer, settings: Settings) -> Peer:
    if isinstance(peer, CidrPeer) and peer.matches_workloads:
        return replace(peer, matches_workloads=settings.ipblock_matches_workloads)
    return EndpointPeer(own_cluster(settings.cluster)) if peer == OWN_CLUSTER else peer


def policy(rule: PolicyRule, path: str, commit: str) -> PolicyRule:
    return PolicyRule(
        rule.kind,
        rule.namespace,
        rule.name,
        rule.subject,
        _origin(rule.origin, path, commit),
        rule.scope,
        tuple([_item(item, path, commit) for item in rule.ingress]),
        tuple([_item(item, path, commit) for item in rule.egress]),
        rule.isolates_ingress,
        rule.isolates_egress,
        rule.requires_ingress,
        rule.requires_egress,
        rule.audit,
    )


def _item(item: RuleItem, path: str, commit: str) -> RuleItem:
    return RuleItem(item.field, item.peers, item.ports, _origin(item.origin, path, commit), item.deny, item.l7)


def _origin(origin: Origin, path: str, commit: str) -> Origin:
    return Origin(path, origin.line, origin.kind, origin.name, commit, origin.column)


def own(content: Own, path: str, commit: str) -> Own:
    """What is no policy, with all that it holds."""
    stamped = replace(content, origin=_origin(content.origin, path, commit))
    if isinstance(stamped, Cluster):
        probes = tuple(replace(probe, origin=_origin(probe.origin, path, commit)) for probe in stamped.probes)
        return replace(stamped, probes=probes)
    if isinstance(stamped, Host):
        routes = tuple(replace(route, origin=_origin(route.origin, path, commit)) for route in stamped.routes)
        rules = tuple(replace(rule, origin=_origin(rule.origin, path, commit)) for rule in stamped.rules)
        return replace(stamped, routes=routes, rules=rules)
    if isinstance(stamped, PolicyTest):
        found = tuple(replace(one, origin=_origin(one.origin, path, commit)) for one in stamped.expectations)
        return replace(stamped, expectations=found)
    return stamped
