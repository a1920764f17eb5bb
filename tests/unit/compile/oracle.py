"""What policy means, said naively over values: no identities, no bitmaps, no prefixes, no rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from reconciler.model.cluster import NamedPort
from reconciler.model.labels import LabelSet
from reconciler.model.policy import CidrPeer, EndpointPeer, Peer, PolicyRule, PortMatch, RuleItem


@dataclass(frozen=True)
class Party:
    """One end of a flow; `outside`: neither a workload nor a node."""

    address: IPv4Address | IPv6Address
    labels: LabelSet
    ports: tuple[NamedPort, ...] = ()
    workload: bool = False

    @property
    def outside(self) -> bool:
        return any(label.source == "reserved" and label.key.startswith("world") for label in self.labels)


def allowed(
    rules: Iterable[PolicyRule], subject: Party, peer: Party, protocol: int, port: int, *, egress: bool
) -> bool:
    """In default enforcement mode, without audit rules."""
    selecting = [rule for rule in rules if rule.subject.matches(subject.labels)]
    isolated = any(rule.isolates_egress if egress else rule.isolates_ingress for rule in selecting)
    required = [one for rule in selecting for one in (rule.requires_egress if egress else rule.requires_ingress)]
    items = [one for rule in selecting for one in (rule.egress if egress else rule.ingress)]
    server = peer if egress else subject
    matching = [one for one in items if _peer_matches(one, peer) and _port_matches(one, server, protocol, port)]
    if any(one.deny for one in matching):
        return False
    if not isolated:
        return True
    return bool(matching) and all(selector.matches(peer.labels) for selector in required)


def _peer_matches(one: RuleItem, peer: Party) -> bool:
    return one.peers is None or any(_matches(wanted, peer) for wanted in one.peers)


def _matches(wanted: Peer, peer: Party) -> bool:
    if isinstance(wanted, EndpointPeer):
        return wanted.selector.matches(peer.labels)
    assert isinstance(wanted, CidrPeer)
    if not (peer.outside or (peer.workload and wanted.matches_workloads)):
        return False
    return peer.address in wanted.network and not any(peer.address in hole for hole in wanted.excepts)


def _port_matches(one: RuleItem, server: Party, protocol: int, port: int) -> bool:
    return one.ports is None or any(_port(match, server, protocol, port) for match in one.ports)


def _port(match: PortMatch, server: Party, protocol: int, port: int) -> bool:
    if match.protocol != protocol:
        return False
    if match.name:
        return NamedPort(match.name, port, protocol) in server.ports
    if match.first == match.last == 0 and protocol not in (1, 58):
        return True
    return match.first <= port <= match.last
