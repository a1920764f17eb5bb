"""What connects one local workload: its veth pair, addresses, sysctls, neighbours, endpoint rows and programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface

from reconciler.compile.members import addresses
from reconciler.compile.tables import AskedRow
from reconciler.errors import CompileError
from reconciler.model.cluster import Workload
from reconciler.model.datapath import GATEWAY_MAC, AttachmentKey, AttachmentRow, EndpointRow, Hook
from reconciler.model.facts import Endpoint
from reconciler.model.network import (
    HOST_NETNS,
    Address,
    AddressKey,
    Carrier,
    Link,
    Neighbour,
    NeighbourKey,
    Sysctl,
    SysctlKey,
    VethPeer,
)

PROGRAMS = {Hook.INGRESS: "from_workload", Hook.EGRESS: "to_workload"}

# Of the host end. Its route is a /32, so the reverse path filter has nothing to add to the datapath's source check.
HOST_END4 = {"forwarding": "1", "rp_filter": "0"}
# No link-local address (mode 1 of linux/if_link.h, IN6_ADDR_GEN_MODE_NONE): the BPF program answers neighbours.
HOST_END6 = {"accept_ra": "0", "addr_gen_mode": "1", "forwarding": "1"}
# Of the workload's end. Nobody else can have its address, so no detection of duplicates delays it.
WORKLOAD_END6 = {"accept_dad": "0", "accept_ra": "0", "disable_ipv6": "0"}


def device_rows(
    workload: Workload, endpoint: Endpoint, mtu_bytes: int, programs: Mapping[str, str]
) -> Iterator[AskedRow]:
    """`programs`: name -> digest. Raises CompileError for a program that is not among them."""
    origin = workload.origin
    peer = VethPeer(workload.netns, workload.interface, endpoint.mac)
    yield AskedRow("links", endpoint.ifname, Link(GATEWAY_MAC, mtu_bytes, peer), origin)
    yield AskedRow("carriers", endpoint.ifname, Carrier(), origin)
    for key, value in _sysctls(workload, endpoint):
        yield AskedRow("sysctls", key, Sysctl(value), origin)
    for address in addresses(endpoint):
        own = AddressKey(workload.netns, workload.interface, ip_interface(address))
        yield AskedRow("addresses", own, Address(), origin)
        neighbour = NeighbourKey(HOST_NETNS, endpoint.ifname, address)
        yield AskedRow("neighbours", neighbour, Neighbour(endpoint.mac), origin)
        row = EndpointRow(endpoint.ifname, endpoint.mac, endpoint.identity)
        yield AskedRow("endpoints", address, row, origin)
    for hook, program in PROGRAMS.items():
        if program not in programs:
            raise CompileError(f"the program {program} is not built")
        yield AskedRow(
            "attachments",
            AttachmentKey(endpoint.ifname, hook),
            AttachmentRow(program, programs[program]),
            origin,
        )


def _sysctls(workload: Workload, endpoint: Endpoint) -> Iterator[tuple[SysctlKey, str]]:
    if endpoint.address4 is not None:
        for name, value in HOST_END4.items():
            yield SysctlKey(HOST_NETNS, f"net/ipv4/conf/{endpoint.ifname}/{name}"), value
    if endpoint.address6 is not None:
        for name, value in HOST_END6.items():
            yield SysctlKey(HOST_NETNS, f"net/ipv6/conf/{endpoint.ifname}/{name}"), value
        for name, value in WORKLOAD_END6.items():
            yield SysctlKey(workload.netns, f"net/ipv6/conf/{workload.interface}/{name}"), value
