"""Peers, ports and places in the few words that a line of a trace has for them."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.compile.cookies import RuleInfo
from reconciler.compile.ports import ICMP
from reconciler.compile.wording import selector
from reconciler.model.labels import LabelSet
from reconciler.model.policy import PROTOCOLS, CidrPeer, EndpointPeer, Peer, PortMatch
from reconciler.source.peers import ENTITIES

COMMIT_DIGITS = 8
_PROTOCOL_NAMES = {number: name.lower() for name, number in PROTOCOLS.items()}
_LAST_ICMP_TYPE = 255


def place(info: RuleInfo) -> str:
    """`policies/web.yaml:12 @ 1a2b3c4d`."""
    commit = f" @ {info.origin.commit[:COMMIT_DIGITS]}" if info.origin.commit else ""
    return f"{info.origin.path}:{info.origin.line}{commit}"


def peers(wanted: Iterable[Peer] | None) -> str:
    """Who is meant; entities by their names."""
    if wanted is None:
        return "any peer"
    listed = list(dict.fromkeys(wanted))
    words = []
    for name, of_entity in ENTITIES.items():
        if len(of_entity) > 1 and set(of_entity) <= set(listed):
            words.append(name)
            listed = [peer for peer in listed if peer not in of_entity]
    return " or ".join([*words, *map(_peer, listed)]) or "nobody"


def _peer(peer: Peer) -> str:
    if isinstance(peer, EndpointPeer):
        return selector(peer.selector) if peer.selector.requirements else "any peer"
    if isinstance(peer, CidrPeer):
        outside = f" without {', '.join(map(str, peer.excepts))}" if peer.excepts else ""
        return f"{peer.network}{outside}"
    what = selector(peer.selector) if peer.selector is not None else peer.name
    return f"service {peer.namespace}/{what}" if peer.namespace else f"service {what}"


def ports(wanted: Iterable[PortMatch] | None) -> str:
    if wanted is None:
        return "any port"
    return ", ".join(map(_port, wanted)) or "no port"


def _port(match: PortMatch) -> str:
    name = _PROTOCOL_NAMES.get(match.protocol, str(match.protocol))
    if match.protocol in ICMP:
        numbers = str(match.first) if match.first == match.last else f"{match.first}-{match.last}"
        return name if (match.first, match.last) == (0, _LAST_ICMP_TYPE) else f"{name}/{numbers}"
    if match.name:
        return f"{match.name}/{name}"
    if match.first == match.last == 0:
        return name
    return f"{match.first}/{name}" if match.first == match.last else f"{match.first}-{match.last}/{name}"


def labels(given: LabelSet) -> list[str]:
    """`source:key=value`, sorted."""
    return sorted(map(str, given))
