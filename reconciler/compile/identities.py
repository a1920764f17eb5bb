"""Every identity that can be a peer here: shared ones, refined ones, CIDRs, and the reserved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from reconciler.compile.backends import NO_BACKENDS, Backends
from reconciler.compile.members import Members, PortName
from reconciler.compile.networks import IpNetwork, Networks
from reconciler.errors import CompileError
from reconciler.model.facts import Facts
from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin
from reconciler.model.policy import CidrPeer, PolicyRule, RuleItem, ServicePeer

MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2: where IPv4 lives in the ipcache


@dataclass(frozen=True, slots=True)
class Asked:
    """What the rules of this host ask for beyond labels.

    networks    CIDR -> the first entry that names it
    blocks      those that match workloads too
    names       named ports
    """

    networks: Mapping[IpNetwork, Origin]
    blocks: frozenset[IpNetwork]
    names: frozenset[PortName]


def asked(rules: Iterable[PolicyRule], backends: Backends = NO_BACKENDS) -> Asked:
    """Raises CompileError for an IPv6 CIDR of mapped IPv4 addresses: those are written as IPv4."""
    networks: dict[IpNetwork, Origin] = {}
    blocks: set[IpNetwork] = set()
    names: set[PortName] = set()
    for rule in rules:
        for item in rule.ingress + rule.egress:
            names |= {(match.name, match.protocol) for match in item.ports or () if match.name}
            for peer in _cidrs(item, backends):
                for network in (peer.network, *peer.excepts):
                    _refuse_mapped(network, item)
                    networks.setdefault(network, item.origin)
                blocks.update((peer.network, *peer.excepts) if peer.matches_workloads else ())
    return Asked(networks, frozenset(blocks), frozenset(names))


def _cidrs(item: RuleItem, backends: Backends) -> Iterator[CidrPeer]:
    for peer in item.peers or ():
        if isinstance(peer, CidrPeer):
            yield peer
        elif isinstance(peer, ServicePeer):
            yield from (each for each in backends.peers(peer) if isinstance(each, CidrPeer))


def _refuse_mapped(network: IpNetwork, item: RuleItem) -> None:
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        raise CompileError(f"{item.origin}: {item.field}: {network} are IPv4 addresses; write them as IPv4")


def all_labels(facts: Facts, refined: Members, cidrs: Networks) -> dict[int, LabelSet]:
    """identity -> labels. What the facts say of a reserved identity is added to what it is by definition."""
    labels: dict[int, LabelSet] = {
        int(kind): reserved_labels(kind) | facts.identities.get(kind, frozenset())
        for kind in Reserved
        if kind is not Reserved.UNKNOWN
    }
    for number, known in facts.identities.items():
        labels.setdefault(number, known)
    for number, known in cidrs.labels.items():
        labels[number] = known | labels.get(number, frozenset())
    labels.update(refined.labels)
    return labels
