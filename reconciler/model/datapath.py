"""Rows of the tables that BPF holds: endpoints, tunnels, ipcache, policy, programs, attachments.

Columns are logical here (host byte order, plain numbers); the layout in the kernel is written once, in `bpf/lib/`, and
`kernel` translates by BTF.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np

# Every host end of a veth pair has this one address: each pair is a link of its own, and so the answers to ARP and
# neighbour discovery are a constant of the datapath. Locally administered, unicast.
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """Where packets to a local workload's address go; keyed by the address (IPv4Address or IPv6Address)."""

    ifname: str  # host end of its veth pair; the table resolves it to an index, `` if there is no such link
    mac: str  # of the workload's end
    identity: int = 0  # what the whole cluster knows it by


EndpointKey = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class TunnelRow:
    """The way to another node's workloads, keyed by their CIDR (IPv4Network or IPv6Network).

    Keyed by the address that this host itself has among workloads, `remote` is `local`.
    """

    ifname: str  # overlay device; as in EndpointRow
    remote: IPv4Address | IPv6Address  # the outer packets' addresses, of one family
    local: IPv4Address | IPv6Address
    cluster: int = 0  # id of that node's cluster


TunnelKey = IPv4Network | IPv6Network


class Verdict(IntEnum):
    """What a policy row says. Of the rows that match a packet the strongest wins: deny, allow, default deny."""

    DEFAULT_DENY = 0  # isolated, and nothing else matched; the cookie is the isolating policy's
    ALLOW = 1
    DENY = 2


class PolicyFlag(IntFlag):
    REDIRECT = 1  # to the proxy, which has the last word
    AUDIT = 2  # record a denial, let the packet pass


# A row per subject, direction, peer and port prefix. `port` is in host order; of its 16 bits the first `port_bits`
# compare. `protocol` 0 means any protocol and goes with `port_bits` 0. `peer` 0 means any peer. The verdict of a row
# already combines every row of the same subject, direction and peer that covers it: the longest match is the answer.
POLICY_KEY = np.dtype(
    [
        ("subject", "<u4"),
        ("peer", "<u4"),
        ("egress", "u1"),
        ("protocol", "u1"),
        ("port_bits", "u1"),
        ("pad", "u1"),
        ("port", "<u2"),
        ("pad2", "<u2"),
    ]
)
POLICY_VALUE = np.dtype([("verdict", "u1"), ("flags", "u1"), ("proxy_port", "<u2"), ("cookie", "<u4")])


class IpcacheFlag(IntFlag):
    LOCAL = 1  # a workload of this host: its side of a flow is judged here
    HOST = 2  # an address of this host itself
    AUDIT = 4  # a workload of this host in audit mode: what its side denies is recorded, and passes


# Addresses are 128 bits in two words, most significant first; IPv4 is mapped (::ffff:a.b.c.d), so that its prefix
# length is 96 longer. Full length rows are exact; the others compete by the longest prefix.
IPCACHE_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("bits", "<u4"), ("pad", "<u4")])
IPCACHE_VALUE = np.dtype([("identity", "<u4"), ("flags", "<u4")])


class Hook(IntEnum):
    """Where a device runs a program: on packets that it brings to the host, on packets that leave by it; and before
    the host makes a packet of what it brings, in its driver or behind it."""

    INGRESS = 0
    EGRESS = 1
    XDP = 2  # in the driver, if that takes a program
    XDP_NATIVE = 3  # in the driver
    XDP_GENERIC = 4  # behind it


TC_HOOKS = (Hook.INGRESS, Hook.EGRESS)
XDP_HOOKS = (Hook.XDP, Hook.XDP_NATIVE, Hook.XDP_GENERIC)  # three ways to ask for one place


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """A loaded and pinned program, keyed by its name; `digest` covers its object file and load-time constants."""

    digest: str


@dataclass(frozen=True, slots=True)
class AttachmentKey:
    ifname: str
    hook: Hook


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """The program a hook runs, by name and digest; `` as digest if it is not one of ours or reads other maps."""

    program: str
    digest: str


class SocketHook(StrEnum):
    """What a process asks the kernel, by the names of `bpftool cgroup attach`; each has the program `socket_HOOK`."""

    CONNECT4 = "connect4"
    CONNECT6 = "connect6"
    SENDMSG4 = "sendmsg4"
    SENDMSG6 = "sendmsg6"
    RECVMSG4 = "recvmsg4"
    RECVMSG6 = "recvmsg6"
    GETPEERNAME4 = "getpeername4"
    GETPEERNAME6 = "getpeername6"


@dataclass(frozen=True, slots=True)
class CgroupKey:
    """A hook of a cgroup, whose row is an AttachmentRow; it covers the cgroups below as well.

    `cgroup` is a path below the mount of the cgroup2 file system, without slashes around it; '' is the root.
    """

    cgroup: str
    hook: SocketHook
