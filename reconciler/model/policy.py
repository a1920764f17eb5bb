"""Policy in one form, whatever kind of manifest it was written as.

A NetworkPolicy, a CiliumNetworkPolicy and a CiliumClusterwideNetworkPolicy each become `PolicyRule`s, one for each
`spec`. Everything that its kind implies (the namespace of a selector, the meaning of a missing list) is already worked
in here: whoever reads a rule needs no other context. The meaning of null against an empty list is kept: None is any,
an empty tuple is nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from reconciler.model.origin import Origin
from reconciler.model.selector import Selector

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPV6": 58}
ANY_TRANSPORT = (PROTOCOLS["TCP"], PROTOCOLS["UDP"], PROTOCOLS["SCTP"])


@dataclass(frozen=True, slots=True)
class EndpointPeer:
    """Identities that the selector matches. Entities are here too: `host` is `reserved:host` and so on."""

    selector: Selector


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """Addresses inside `network` and outside each of `excepts`.

    Where `matches_workloads` is false it means addresses that are neither workloads nor nodes.
    """

    network: IPv4Network | IPv6Network
    excepts: tuple[IPv4Network | IPv6Network, ...] = ()
    matches_workloads: bool = False


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """The endpoints of services, by name or by their labels (with the source k8s), in a namespace or ('') in any."""

    namespace: str
    name: str = ""
    selector: Selector | None = None


Peer = EndpointPeer | CidrPeer | ServicePeer


@dataclass(frozen=True, slots=True)
class PortMatch:
    """Destination ports `first` to `last` of one IP protocol; 0 to 0 is every port.

    ICMP types stand in as ports. Type 0 (echo reply) is a type like any other: for ICMP 0 to 0 is that one type, and
    0 to 255 is all of them.

    A named port has `name`, and `first` and `last` are 0: it is resolved at the destination.
    """

    protocol: int
    first: int = 0
    last: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class L7Rules:
    """What the proxy must check, as it stands in the manifest; `parser` is http, kafka, dns or an l7proto."""

    parser: str
    rules: str  # canonical JSON


@dataclass(frozen=True, slots=True)
class RuleItem:
    """One entry of an ingress or egress list: peers AND ports. `origin.line` is the entry's own line.

    peers is None: any peer. ports is None: any port of any protocol.
    `field` names the entry for people: `ingress[0]`, `egressDeny[2]`.
    """

    field: str
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None
    origin: Origin
    deny: bool = False
    l7: L7Rules | None = None


class Scope(Enum):
    WORKLOADS = "workloads"
    NODES = "nodes"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One `spec`. `requires_*` are AND-ed into each allowing item of every rule on the same subject and direction.

    `isolates_*`: the direction is denied by default for the subjects.
    """

    kind: str
    namespace: str  # '' for cluster-wide kinds
    name: str
    subject: Selector
    origin: Origin
    scope: Scope = Scope.WORKLOADS
    ingress: tuple[RuleItem, ...] = ()
    egress: tuple[RuleItem, ...] = ()
    isolates_ingress: bool = False
    isolates_egress: bool = False
    requires_ingress: tuple[Selector, ...] = ()
    requires_egress: tuple[Selector, ...] = ()
    audit: bool = False

    @property
    def reference(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"
