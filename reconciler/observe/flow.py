"""What the datapath says of one packet, as a value: a drop, or the verdict of a new flow.

Numbers are those of `bpf/lib/events.h`; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address

from reconciler.model.policy import PROTOCOLS

PROTOCOL_NAMES = {number: name.lower() for name, number in PROTOCOLS.items()}
_ICMP = (PROTOCOLS["ICMP"], PROTOCOLS["ICMPV6"])
# linux/tcp.h, tcp_flag_word: from the lowest bit.
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


class EventType(IntEnum):
    DROP = 1
    VERDICT = 2  # a new flow, or one that was judged again under a newer commit

    @property
    def word(self) -> str:
        return self.name.lower()


class Side(Enum):
    """Whose policy decided."""

    NONE = 0
    EGRESS = 1  # the source's
    INGRESS = 2  # the destination's

    @property
    def word(self) -> str:
        return self.name.lower()


class Reason(IntEnum):
    """Why a packet was dropped, or may pass. `title` names it for people, `sentence` explains it."""

    title: str
    sentence: str

    def __new__(cls, number: int, title: str, sentence: str) -> Reason:
        reason = int.__new__(cls, number)
        reason._value_ = number
        reason.title = title
        reason.sentence = sentence
        return reason

    ALLOWED = 0, "policy: allowed", "No policy isolates the workload in this direction, or a rule allows the flow."
    POLICY_DEFAULT = 1, "policy: isolated", "A policy isolates the workload in this direction and no rule allows it."
    POLICY_DENY = 2, "policy: denied", "A rule denies it; a denial is stronger than any rule that allows."
    NO_POLICY = 3, "no policy rows", "The host has no policy rows for this workload yet; until it has, nothing passes."
    SPOOFED_SOURCE = 4, "spoofed source", "The workload sent a packet with a source address that is not its own."
    UNKNOWN_DESTINATION = (
        5,
        "unknown destination",
        "The packet was on its way to a workload's device for an address that the workload does not have.",
    )
    MALFORMED = 6, "malformed", "A header is cut short or contradicts itself."
    UNSUPPORTED_PROTOCOL = 7, "unsupported protocol", "It is neither IPv4, IPv6 nor ARP, or it is multicast."
    FRAGMENT_UNKNOWN = 8, "fragment without its first", "A later fragment whose first fragment was never seen."
    CONNTRACK_FULL = (
        9,
        "conntrack is full",
        "There is no room for another flow; see conntrack.maxEntries of the Cluster.",
    )
    AUDITED = 10, "audited", "A rule in audit mode would drop it; it passed."
    NO_STATE = 11, "no state", "The datapath is attached but was never given its state; is the daemon still starting?"
    NO_PROXY = 12, "no proxy", "A rule leaves the last word to a proxy, and none is there."
    NO_PORT = (
        13,
        "no port is left",
        "All ports for masquerading are taken towards this destination (see masquerade.ports of the Cluster), or the "
        "client has a connection to this backend from the same port, by another address of the service.",
    )
    UNTRANSLATABLE = (
        14,
        "untranslatable",
        "It would leave with the host's address, and its protocol has no ports to tell the answers apart by; or it is "
        "SCTP in fragments and needs another port, which its checksum does not allow.",
    )
    TUNNEL_NODE = (
        15,
        "not the sender's node",
        "It came out of a tunnel, from another address than that of the node whose workloads have its source address.",
    )
    TUNNEL_IDENTITY = (
        16,
        "not a node's to tell",
        "It came out of a tunnel with an identity that the other node has not.",
    )
    TUNNEL_DESTINATION = 17, "not here", "It was wrapped for an address that no workload of that node has."
    NO_BACKEND = 18, "no backend", "It is for a service that has no backend, or for a connection whose backend is dead."
    NOT_ADMITTED = 19, "not for this client", "It is for a service whose loadBalancerSourceRanges leave its sender out."
    PREFILTERED = 20, "prefiltered", "It is from a CIDR that gets no answer at all; such packets are only counted."
    TUNNEL_FORBIDDEN = (
        21,
        "not a workload's to send",
        "A workload sent it to the port of the tunnels between nodes, and not to another workload.",
    )
    NO_FRONTEND = (
        22,
        "not a service's",
        "Another node brought it to a backend here, in the name of an address and port that are no service's.",
    )
    TOO_LARGE = 23, "too large", "It does not fit the way to its backend; its sender was told unless it may be cut."
    NO_ROOM = (
        24,
        "no room for headers",
        "The kernel could not put headers before it: it has no memory, or the device takes no packet of that size.",
    )

    @property
    def word(self) -> str:
        """As JSON shows it: `policy-default`."""
        return self.name.lower().replace("_", "-")


REASONS = {int(reason): reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """One packet, in its own direction: `source` sent it. `reply` is against the flow's first packet.

    Ports are 0 where there are none. An identity is 0 where the drop came before anyone asked for it. `generation`
    selects policy rows, `cookie` the rule behind the verdict (0: no rule).
    """

    time_ns: int  # since 1970, UTC
    type: EventType
    reason: Reason
    side: Side
    family: int  # 4 or 6; 0 where the packet was not parsed that far
    protocol: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int
    tcp_flags: int
    icmp_type: int | None
    icmp_code: int | None
    icmp_identifier: int | None
    source_identity: int
    destination_identity: int
    cookie: int
    generation: int
    ifindex: int
    length_bytes: int
    reply: bool

    @property
    def protocol_name(self) -> str:
        return PROTOCOL_NAMES.get(self.protocol, str(self.protocol))

    @property
    def tcp_flag_names(self) -> list[str]:
        return [name for bit, name in enumerate(_TCP_FLAGS) if self.tcp_flags >> bit & 1]


def is_icmp(protocol: int) -> bool:
    return protocol in _ICMP
