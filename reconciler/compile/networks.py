"""Identities of CIDRs: what rules name of the world outside the cluster, and where workloads of other nodes live.

The longest prefix decides the identity of an address, and that identity carries a label for every named CIDR around it:
so the selector of 10.0.0.0/8 is one label, and matches every identity whose CIDR lies inside.

An address of another node's CIDR that is no known workload's is `reserved:unmanaged` and no part of the world: it can
only be of a workload whose address did not get here. What matches workloads by address (an ipBlock) matches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.compile.numbering import number
from reconciler.compile.selectors import IPBLOCK_SOURCE
from reconciler.model.identity import FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.labels import Label, LabelSet

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

CIDR_SOURCE = "cidr"
CIDR_NUMBERS = 1 << 23  # from FIRST_LOCAL on; the upper half of the local identities is for refined ones
EVERYTHING4 = IPv4Network("0.0.0.0/0")
EVERYTHING6 = IPv6Network("::/0")
WORLD: dict[IpNetwork, Reserved] = {EVERYTHING4: Reserved.WORLD_IPV4, EVERYTHING6: Reserved.WORLD_IPV6}

UNMANAGED = reserved_labels(Reserved.UNMANAGED)


@dataclass(frozen=True, slots=True)
class Networks:
    """numbers  CIDR -> identity, without the two worlds
    labels   identity -> labels, of the worlds and of identities that only this host has
    """

    numbers: Mapping[IpNetwork, int]
    labels: Mapping[int, LabelSet]


def networks(
    named: Iterable[IpNetwork],
    elsewhere: frozenset[IpNetwork] = frozenset(),
    blocks: frozenset[IpNetwork] = frozenset(),
) -> Networks:
    """0.0.0.0/0 and ::/0 are the world's own identities. `elsewhere`: CIDRs of other nodes, apart from each other;
    `blocks`: those that match workloads too. Raises CompileError above 1,048,576 CIDRs.
    """
    nested = _nested({*named, *elsewhere} - WORLD.keys())
    drawn = number(map(str, nested), CIDR_NUMBERS)
    labels = {int(kind): reserved_labels(kind) | {cidr_label(network)} for network, kind in WORLD.items()}
    numbers: dict[IpNetwork, int] = {}
    for network, around in nested.items():
        everything = EVERYTHING4 if network.version == 4 else EVERYTHING6
        own = FIRST_LOCAL + drawn[str(network)]
        if elsewhere.isdisjoint(around):
            labels[own] = labels[WORLD[everything]] | {cidr_label(outer) for outer in around}
        elif inside := blocks.intersection((everything, *around)):
            labels[own] = UNMANAGED | {Label(IPBLOCK_SOURCE, str(block)) for block in inside}
        else:
            own = Reserved.UNMANAGED
        numbers[network] = own
    return Networks(numbers, labels)


def _nested(named: Iterable[IpNetwork]) -> dict[IpNetwork, tuple[IpNetwork, ...]]:
    """network -> those among `named` that contain it, itself last."""
    nested: dict[IpNetwork, tuple[IpNetwork, ...]] = {}
    around: tuple[IpNetwork, ...] = ()
    for network in sorted(named, key=lambda net: (net.version, net.network_address, net.prefixlen)):
        around = (*(outer for outer in around if _contains(outer, network)), network)
        nested[network] = around
    return nested


def _contains(outer: IpNetwork, inner: IpNetwork) -> bool:
    return outer.version == inner.version and inner.network_address in outer


def cidr_label(network: IpNetwork) -> Label:
    return Label(CIDR_SOURCE, str(network))
