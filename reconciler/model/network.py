"""Rows of the tables that netlink and procfs serve: links, addresses, routes, rules, neighbours, sysctls.

A row names its network namespace by path (`/run/netns/web`); the empty string is the host's own, that is the one the
process runs in.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

HOST_NETNS = ""

# Marks what is ours in routes (rtm_protocol), rules (FRA_PROTOCOL), addresses (IFA_PROTO) and neighbours
# (NDA_PROTOCOL). Free in linux/rtnetlink.h and in iproute2's rt_protos.
PROTOCOL = 112
IPV6_PRIORITY = 1024  # IP6_RT_PRIO_USER, linux/ipv6_route.h
ALTNAME_PREFIX = "plumb-"  # marks our links; an alternative name is at most 128 bytes (linux/if_link.h)


@dataclass(frozen=True, slots=True)
class VethPeer:
    """The workload's end of a veth pair. A live row whose `name` is empty says that no end of ours was found."""

    netns: str
    name: str
    mac: str
    mtu_bytes: int = 0  # 0: the same as the host end's
    up: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair, keyed by the name of its host end (always in the host's own namespace).

    Owned through an alternative name, `plumb-<name of the host end>`, on both ends.
    """

    mac: str  # of the host end, lower case, colons
    mtu_bytes: int
    peer: VethPeer


@dataclass(frozen=True, slots=True)
class OverlayDevice:
    """The device through which packets leave for other nodes, keyed by its name. Owned as a `Link` is.

    It answers no ARP: behind it are only the tunnels that the BPF programs know.
    """

    kind: str  # vxlan; ifb where the programs wrap packets themselves, and need no more than a device to hang on
    mac: str
    mtu_bytes: int
    port: int  # UDP, of vxlan; else 0


@dataclass(frozen=True, slots=True)
class Carrier:
    """Nothing beyond its key: the host end of that name is up, so the workload's end has a carrier."""


@dataclass(frozen=True, slots=True)
class AddressKey:
    netns: str
    ifname: str
    address: IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Address:
    """Nothing beyond its key; IPv6 addresses are set without duplicate address detection."""


@dataclass(frozen=True, slots=True)
class RouteKey:
    netns: str
    destination: IPv4Network | IPv6Network
    table: int  # 254 is main
    priority: int  # metric; 0 becomes the kernel's default of its family (IPv4 0, IPv6 1024)

    def __post_init__(self) -> None:
        if not self.priority and self.destination.version == 6:
            object.__setattr__(self, "priority", IPV6_PRIORITY)


@dataclass(frozen=True, slots=True)
class Route:
    """A live row of kind `other` stands for what a Route cannot say (several next hops, an encapsulation)."""

    ifname: str  # '' for the kinds that drop
    gateway: IPv4Address | IPv6Address | None = None
    onlink: bool = False
    source: IPv4Address | IPv6Address | None = None
    kind: str = "unicast"  # unicast, local, blackhole, unreachable, prohibit
    mtu_bytes: int = 0  # 0: the link's


@dataclass(frozen=True, slots=True)
class RuleKey:
    netns: str
    family: int  # 4 or 6
    priority: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A live row of table 0 stands for what a Rule cannot say (another action or selector, several at once)."""

    table: int
    mark: int = 0
    mark_mask: int = 0
    source: IPv4Network | IPv6Network | None = None
    destination: IPv4Network | IPv6Network | None = None
    in_ifname: str = ""


@dataclass(frozen=True, slots=True)
class NeighbourKey:
    netns: str
    ifname: str
    address: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent entry."""

    mac: str


@dataclass(frozen=True, slots=True)
class SysctlKey:
    netns: str
    name: str  # as a path below /proc/sys with slashes: net/ipv4/ip_forward


@dataclass(frozen=True, slots=True)
class Sysctl:
    value: str  # white space as single blanks
