"""Ports, protocols and ICMP types of policies as port matches.

Source of the ICMP names: cilium/cilium pkg/policy/api/icmp.go; of the port names: RFC 6335, section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from reconciler.model.policy import ANY_TRANSPORT, PROTOCOLS, PortMatch
from reconciler.source.node import Findings, Node
from reconciler.source.phrases import nearest

LAST_PORT = 65535
ANY = "ANY"
PORTLESS = ("VRRP", "IGMP")  # valid for Cilium, with port 0 only
_TRANSPORTS = ("TCP", "UDP", "SCTP")
_KNOWN = (*_TRANSPORTS, "ICMP", "ICMPV6", ANY, *PORTLESS)

_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*\Z")
_LONGEST_NAME = 15
NAME_FORM = f"a name of up to {_LONGEST_NAME} lower case letters, digits and single -, with at least one letter"
_EVERY_PORT = 'every port of the protocol is `port: "0"`'
_NUMBER = re.compile(r"(0|[1-9][0-9]*)\Z")

_ICMP4 = {
    "EchoReply": 0,
    "DestinationUnreachable": 3,
    "Redirect": 5,
    "Echo": 8,
    "EchoRequest": 8,
    "RouterAdvertisement": 9,
    "RouterSelection": 10,
    "TimeExceeded": 11,
    "ParameterProblem": 12,
    "Timestamp": 13,
    "TimestampReply": 14,
    "Photuris": 40,
    "ExtendedEchoRequest": 42,
    "ExtendedEchoReply": 43,
}
_ICMP6 = {
    "DestinationUnreachable": 1,
    "PacketTooBig": 2,
    "TimeExceeded": 3,
    "ParameterProblem": 4,
    "EchoRequest": 128,
    "EchoReply": 129,
    "MulticastListenerQuery": 130,
    "MulticastListenerReport": 131,
    "MulticastListenerDone": 132,
    "RouterSolicitation": 133,
    "RouterAdvertisement": 134,
    "NeighborSolicitation": 135,
    "NeighborAdvertisement": 136,
    "RedirectMessage": 137,
    "RouterRenumbering": 138,
    "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140,
    "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142,
    "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145,
    "MobilePrefixSolicitation": 146,
    "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157,
    "DuplicateAddressConfirmationCodeSuffix": 158,
    "ExtendedEchoRequest": 160,
    "ExtendedEchoReply": 161,
}
_ICMP_TYPES = {"IPv4": (PROTOCOLS["ICMP"], _ICMP4), "IPv6": (PROTOCOLS["ICMPV6"], _ICMP6)}

Matches = tuple[PortMatch, ...]


def kubernetes(nodes: Iterable[Node], findings: Findings) -> Matches:
    """Ports of a NetworkPolicy; the protocol defaults to TCP."""
    found: list[PortMatch] = []
    for node in nodes:
        protocol = PROTOCOLS[node.read("protocol", default="TCP")]
        port = node.read("port")
        if isinstance(port, str):
            found.append(PortMatch(protocol, name=port))
            if not is_name(port):
                findings.fault(node.place_of("port"), _kubernetes_fault(port))
            _refuse_range_of_name(node, findings)
        elif port is None:
            found.append(PortMatch(protocol))
            if node.get("endPort"):
                findings.fault(node.place_of("endPort"), "endPort needs a port to begin the range")
        else:
            found.append(PortMatch(protocol, int(port), _last(node, int(port), findings)))
    return tuple(found)


def cilium(nodes: Iterable[Node], findings: Findings) -> Matches:
    """Ports of a `toPorts` entry; the port is a string, the protocol defaults to TCP, UDP and SCTP together."""
    found: list[PortMatch] = []
    for node in nodes:
        protocols = _protocols(node, findings)
        number = _number(node, findings)
        if isinstance(number, str):
            found += [PortMatch(protocol, name=number) for protocol in protocols]
            _refuse_range_of_name(node, findings)
        elif number == 0:
            _refuse_range_of_all(node, findings)
            found += [_whole(protocol) for protocol in protocols]
        else:
            last = _last(node, number, findings)
            found += [PortMatch(protocol, number, last) for protocol in protocols]
    return tuple(dict.fromkeys(found))


def _whole(protocol: int) -> PortMatch:
    return PortMatch(protocol, 0, 0 if protocol in ANY_TRANSPORT else 255)


def _protocols(node: Node, findings: Findings) -> tuple[int, ...]:
    name: str = node.read("protocol", default="").upper() or ANY
    if name == ANY:
        return ANY_TRANSPORT
    if name not in _KNOWN:
        findings.fault(node.place_of("protocol"), f'unknown protocol "{name}"; {nearest(name, _KNOWN)}')
    elif name not in _TRANSPORTS and node.read("port", default="") not in ("", "0"):
        findings.fault(node.place_of("port"), f'{name} has no ports: port must be absent or "0"')
    return (PROTOCOLS[name],) if name in PROTOCOLS else ()


def _number(node: Node, findings: Findings) -> int | str:
    """The number, or the name in lower case (names compare without case)."""
    text: str = node.read("port", default="0")
    if not text:
        findings.fault(node.place_of("port"), f"port is empty; {_EVERY_PORT}, or none")
        return 0
    if _NUMBER.match(text):
        if len(text) > 5 or int(text) > LAST_PORT:
            findings.fault(node.place_of("port"), f"port {text} is above {LAST_PORT}")
            return 0
        return int(text)
    name = text.lower()
    if not is_name(name):
        findings.fault(node.place_of("port"), _port_fault(text))
    return name


def _last(node: Node, first: int, findings: Findings) -> int:
    last = int(node.read("endPort", default=0))
    if last and last < first:
        findings.fault(node.place_of("endPort"), f"endPort {last} is below port {first}")
    return last or first


def _refuse_range_of_name(node: Node, findings: Findings) -> None:
    if node.read("endPort"):
        findings.fault(node.place_of("endPort"), "endPort cannot go with a named port")


def _refuse_range_of_all(node: Node, findings: Findings) -> None:
    """Taken for every port, the range would allow more than it says: Cilium's agent does that to 0 with 65535 only."""
    last = node.read("endPort")
    if last and node.read("port", default="0") == "0":
        said = f"port 0 with endPort {last}" if node.get("port") else f"endPort {last} without port"
        findings.fault(
            node.place_of("endPort"),
            f"{said}: a range begins at a port from 1 to {LAST_PORT}; {_EVERY_PORT} without endPort",
        )


def is_name(text: str) -> bool:
    return bool(_NAME.match(text)) and len(text) <= _LONGEST_NAME


def _kubernetes_fault(text: str) -> str:
    if _NUMBER.match(text):
        return f'port "{text}" is a string, and a name has a letter: write a number without quotes'
    return f'port "{text}" is neither a number from 1 to {LAST_PORT} nor {NAME_FORM}'


def _port_fault(text: str) -> str:
    return f'port "{text}" is neither a number from 0 to {LAST_PORT} nor {NAME_FORM}'


def icmp(nodes: Iterable[Node], findings: Findings) -> Matches:
    """Fields of `icmps` entries; the family defaults to IPv4, types stand in as ports."""
    found: list[PortMatch] = []
    for field in (field for node in nodes for field in node.items("fields")):
        family: str = field.read("family", default="") or "IPv4"
        if family not in _ICMP_TYPES:
            findings.fault(field.place_of("family"), f'family "{family}" is not one of IPv4, IPv6')
            continue
        protocol, names = _ICMP_TYPES[family]
        kind = _icmp_type(field, names, family, findings)
        found.append(PortMatch(protocol, kind, kind))
    return tuple(dict.fromkeys(found))


def _icmp_type(field: Node, names: dict[str, int], family: str, findings: Findings) -> int:
    written = field.read("type")
    if not isinstance(written, str):
        return int(written)
    if written in names:
        return names[written]
    if _NUMBER.match(written) and int(written) <= 255:
        return int(written)
    findings.fault(field.place_of("type"), f'unknown ICMP type "{written}" of {family}; {nearest(written, names)}')
    return 0
