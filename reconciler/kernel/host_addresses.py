"""The addresses that this host has itself: packets from and to them are the host's.

Links have some, and so have routes: the kernel takes whatever its table `local` says is local or anycast, a whole CIDR
too (kernel net/ipv4/fib_frontend.c, net/ipv6/anycast.c).

Those that a commit gave it are left out, as the commit knows them. So are link-local ones: they come and go with our
own links, and nothing is routed to them; those of IPv4 that somebody else gave a link are the host's as CIDRs are.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from reconciler.kernel import routes
from reconciler.kernel.addresses import GET, IFA_ADDRESS, IFA_LOCAL, IFA_PROTO, IFADDRMSG
from reconciler.kernel.netlink import Netlink, address, doing, pairs
from reconciler.model.network import PROTOCOL

ROUTERS_BELOW = 127  # longer prefixes have no anycast address of routers, kernel net/ipv6/addrconf.c


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


def host_networks() -> frozenset[IPv4Network | IPv6Network]:
    """What else is this host's, of the caller's namespace; without loopback, and as `host_addresses` link-local.

    The anycast address of a subnet's routers is there whether this host forwards or not: a commit may change that.
    Raises KernelError.
    """
    with doing("read this host's addresses and local routes"), Netlink() as netlink:
        found, ours = _besides_addresses(netlink)
        request = routes.RTMSG.pack(0, 0, 0, 0, routes.LOCAL_TABLE, 0, 0, 0, 0)
        found |= {one for body in netlink.dump(routes.GET, request) if (one := routes.host_network(body)) is not None}
    return frozenset(found - ours)


def _besides_addresses(netlink: Netlink) -> tuple[set[IPv4Network | IPv6Network], set[IPv4Network | IPv6Network]]:
    """What addresses of links bring along: those of others, and those of a commit."""
    found: set[IPv4Network | IPv6Network] = set()
    ours: set[IPv4Network | IPv6Network] = set()
    for body in netlink.dump(GET, IFADDRMSG.pack(0, 0, 0, 0, 0)):
        said = dict(pairs(body, IFADDRMSG.size))
        value = said.get(IFA_LOCAL) or said.get(IFA_ADDRESS)
        if value is None or (one := address(value)).is_loopback:
            continue
        into = ours if said.get(IFA_PROTO) == bytes((PROTOCOL,)) else found
        length = IFADDRMSG.unpack_from(body)[1]
        if one.version == 4 and one.is_link_local:
            into.add(ip_network(one))
        elif one.version == 6 and not one.is_link_local and length < ROUTERS_BELOW:
            into.add(ip_network(ip_network((one, length), strict=False).network_address))
    return found, ours - found


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
