"""The addresses that this host has itself: packets from and to them are the host's.

Those that a commit gave it are left out, as the commit knows them. So are link-local ones: they come and go with our
own links, and nothing is routed to them.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from reconciler.kernel.addresses import GET, IFA_ADDRESS, IFA_LOCAL, IFA_PROTO, IFADDRMSG
from reconciler.kernel.netlink import Netlink, address, doing, pairs
from reconciler.model.network import PROTOCOL


def host_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """All but loopback and link-local, of every link of the caller's namespace. Raises KernelError."""
    found = set()
    with doing("read this host's addresses"), Netlink() as netlink:
        for body in netlink.dump(GET, IFADDRMSG.pack(0, 0, 0, 0, 0)):
            said = dict(pairs(body, IFADDRMSG.size))
            value = said.get(IFA_LOCAL) or said.get(IFA_ADDRESS)
            if value is None or said.get(IFA_PROTO) == bytes((PROTOCOL,)):
                continue
            if not ((one := address(value)).is_loopback or one.is_link_local):
                found.add(one)
    return frozenset(found)


def devices_of(wanted: Collection[IPv4Address | IPv6Address]) -> dict[IPv4Address | IPv6Address, str]:
    """address -> name of the link of the caller's namespace that has it, for those that one has. Raises KernelError."""
    found: dict[IPv4Address | IPv6Address, str] = {}
    if not wanted:
        return found
    with doing("read this host's addresses"), Netlink() as netlink:
        for body in netlink.dump(GET, IFADDRMSG.pack(0, 0, 0, 0, 0)):
            said = dict(pairs(body, IFADDRMSG.size))
            value = said.get(IFA_LOCAL) or said.get(IFA_ADDRESS)
            if value is not None and (one := address(value)) in wanted:
                found[one] = netlink.ifname(IFADDRMSG.unpack_from(body)[4])
    return found
