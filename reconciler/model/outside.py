"""Where a host meets the network around it: its node devices, and what workloads look like from outside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Workloads leave a node with the address of its device, and a port of this range (both ends belong to it).

    `exclude`: where they keep their own address, besides all workloads' CIDRs.
    """

    enabled: bool = False
    exclude: tuple[IPv4Network | IPv6Network, ...] = ()
    first_port: int = 49152
    last_port: int = 65535


NO_MASQUERADE = Masquerade()


@dataclass(frozen=True, slots=True)
class NodeDevice:
    """An Ethernet device of this host, with the address of each family that speaks for it."""

    address4: IPv4Address | None = None
    address6: IPv6Address | None = None


class DeviceFlag(IntFlag):
    """As `enum device_flags` in bpf/lib/devices.h."""

    NOTHING = 0
    MASQUERADE4 = 1
    MASQUERADE6 = 2
    HOST_POLICY = 4
    SERVICES = 8


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """What is done at a node device; keyed by its name."""

    flags: DeviceFlag
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class PlainRow:
    """Nothing beyond its key: a CIDR that workloads talk to with their own addresses."""


PlainKey = IPv4Network | IPv6Network
