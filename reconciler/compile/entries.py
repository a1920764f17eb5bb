"""One entry of a rule (`ingress[0]`) as bitmaps of peers and prefixes of ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from reconciler.compile.backends import NO_BACKENDS, Backends
from reconciler.compile.members import PortName
from reconciler.compile.networks import CIDR_SOURCE
from reconciler.compile.ports import ANY_PORT, PORT_BITS, PortPrefix, prefixes, resolve
from reconciler.compile.precedence import Claim
from reconciler.compile.selectors import IPBLOCK_SOURCE, LabelIndex
from reconciler.model.cluster import NamedPort
from reconciler.model.datapath import Verdict
from reconciler.model.labels import Label
from reconciler.model.policy import CidrPeer, Peer, PortMatch, RuleItem, ServicePeer


class Entry(NamedTuple):
    """`peers` is a bitmap of the index, None for any peer; it is never empty."""

    peers: int | None
    claim: Claim


NamedPorts = Mapping[PortName, Mapping[int, int]]  # (name, protocol) -> port -> bitmap of identities that have it so


def named_ports(ports: Mapping[int, frozenset[NamedPort]], index: LabelIndex) -> NamedPorts:
    """`ports`: identity -> its named ports."""
    found: defaultdict[PortName, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for identity, named in ports.items():
        for port in named:
            found[port.name, port.protocol][port.port] |= index.bit(identity)
    return found


class Entries:
    """Items of rules to entries, over one state of the index; remembers what it has been asked."""

    def __init__(self, index: LabelIndex, named: NamedPorts, backends: Backends = NO_BACKENDS) -> None:
        self._index = index
        self.named = named
        self.backends = backends
        self._memo: dict[tuple[int, int, frozenset[NamedPort]], tuple[RuleItem, tuple[Entry, ...]]] = {}

    def ingress(self, item: RuleItem, cookie: int, own: frozenset[NamedPort]) -> tuple[Entry, ...]:
        """`own` are the subject's named ports."""
        return self._remembered(item, cookie, own, egress=False)

    def egress(self, item: RuleItem, cookie: int) -> tuple[Entry, ...]:
        """A named port is resolved at each peer."""
        return self._remembered(item, cookie, frozenset(), egress=True)

    def _remembered(self, item: RuleItem, cookie: int, own: frozenset[NamedPort], *, egress: bool) -> tuple[Entry, ...]:
        key = (id(item), cookie, own)
        if key not in self._memo:
            self._memo[key] = (item, tuple(self._entries(item, cookie, own, egress)))
        return self._memo[key][1]

    def _entries(self, item: RuleItem, cookie: int, own: frozenset[NamedPort], egress: bool) -> Iterator[Entry]:
        verdict = Verdict.DENY if item.deny else Verdict.ALLOW
        redirect = item.l7 is not None and not item.deny
        peers = None if item.peers is None else self.union(item.peers)
        if peers == 0:
            return
        named = [match for match in item.ports or () if match.name]
        numeric = _numeric(item.ports)
        if not egress:
            numeric += tuple(prefix for match in named for prefix in resolve(match, own))
        if numeric:
            yield Entry(peers, Claim(numeric, verdict, cookie, redirect))
        for match in named if egress else ():
            for port, having in self.named.get((match.name, match.protocol), {}).items():
                if reached := having if peers is None else peers & having:
                    ports = (PortPrefix(match.protocol, port, PORT_BITS),)
                    yield Entry(reached, Claim(ports, verdict, cookie, redirect))

    def union(self, peers: Iterable[Peer]) -> int | None:
        """Bitmap of the identities that any of the peers matches, None for any identity."""
        bits = 0
        for peer in peers:
            if isinstance(peer, ServicePeer):
                bits |= self.union(self.backends.peers(peer)) or 0
            elif isinstance(peer, CidrPeer):
                bits |= self._inside(peer)
            elif peer.selector.requirements:
                bits |= self._index.select(peer.selector)
            else:
                return None
        return bits

    def _inside(self, peer: CidrPeer) -> int:
        sources = (CIDR_SOURCE, IPBLOCK_SOURCE) if peer.matches_workloads else (CIDR_SOURCE,)
        bits = 0
        for source in sources:
            inside = self._index.carrying(Label(source, str(peer.network)))
            for hole in peer.excepts:
                inside &= ~self._index.carrying(Label(source, str(hole)))
            bits |= inside
        return bits


def _numeric(ports: Iterable[PortMatch] | None) -> tuple[PortPrefix, ...]:
    if ports is None:
        return (ANY_PORT,)
    return tuple(prefix for match in ports if not match.name for prefix in prefixes(match))
