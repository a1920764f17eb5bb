"""Verdicts straight from policy rules, one packet at a time: slow, short, and written down as the semantics say.

It shares no code with the compile to rows, so that it can tell whether the rules themselves are right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from reconciler.model.labels import Label, LabelSet
from reconciler.model.policy import CidrPeer, EndpointPeer, Peer, PolicyRule, PortMatch, RuleItem

ICMP = (1, 58)
INIT = Label("reserved", "init")


@dataclass(frozen=True)
class End:
    """`ports`: (name, protocol, port). Ends that are not `policed` have no policy of their own."""

    labels: LabelSet
    address: IPv4Address | IPv6Address | None = None
    is_workload: bool = True
    policed: bool = True
    ports: frozenset[tuple[str, int, int]] = frozenset()


def allowed(rules: Iterable[PolicyRule], source: End, destination: End, protocol: int, port: int) -> bool:
    rules = list(rules)
    return _side(rules, source, destination, destination, protocol, port, egress=True) and _side(
        rules, destination, source, destination, protocol, port, egress=False
    )


def _side(
    rules: list[PolicyRule], subject: End, peer: End, destination: End, protocol: int, port: int, *, egress: bool
) -> bool:
    if not subject.policed:
        return True
    mine = [rule for rule in rules if rule.subject.matches(subject.labels)]
    matching = [
        item
        for rule in mine
        for item in (rule.egress if egress else rule.ingress)
        if _matches(item, peer, destination, protocol, port)
    ]
    required = [one for rule in mine for one in (rule.requires_egress if egress else rule.requires_ingress)]
    if any(item.deny for item in matching):
        return False
    if matching and all(one.matches(peer.labels) for one in required):
        return True
    isolated = any(rule.isolates_egress if egress else rule.isolates_ingress for rule in mine)
    return not isolated and INIT not in subject.labels


def _matches(item: RuleItem, peer: End, destination: End, protocol: int, port: int) -> bool:
    return (item.peers is None or any(_is(one, peer) for one in item.peers)) and (
        item.ports is None or any(_covers(one, protocol, port, destination) for one in item.ports)
    )


def _is(peer: Peer, end: End) -> bool:
    if isinstance(peer, EndpointPeer):
        return peer.selector.matches(end.labels)
    if not isinstance(peer, CidrPeer) or end.address is None or (end.is_workload and not peer.matches_workloads):
        return False
    return end.address in peer.network and not any(end.address in part for part in peer.excepts)


def _covers(match: PortMatch, protocol: int, port: int, destination: End) -> bool:
    if match.protocol != protocol:
        return False
    if match.name:
        return (match.name, protocol, port) in destination.ports
    every_port = match.first == match.last == 0 and protocol not in ICMP
    return every_port or match.first <= port <= match.last
