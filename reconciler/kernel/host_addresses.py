"""The addresses that this host has itself, whoever set them: packets from and to them are the host's.

Link-local addresses are left out: they come and go with our own links, and nothing is routed to them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from reconciler.kernel.addresses import GET, IFA_ADDRESS, IFA_LOCAL, IFADDRMSG
from reconciler.kernel.netlink import Netlink, address, doing, pairs


def host_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """All but loopback and link-local, of every link of the caller's namespace. Raises KernelError."""
    found = set()
    with doing("read this host's addresses"), Netlink() as netlink:
        for body in netlink.dump(GET, IFADDRMSG.pack(0, 0, 0, 0, 0)):
            said = dict(pairs(body, IFADDRMSG.size))
            value = said.get(IFA_LOCAL) or said.get(IFA_ADDRESS)
            if value is not None and not ((one := address(value)).is_loopback or one.is_link_local):
                found.add(one)
    return frozenset(found)
