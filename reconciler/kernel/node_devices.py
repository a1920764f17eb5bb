"""The devices by which this host is reached from outside: those that are named, or else those that are found.

Found are the devices of default routes and those that have an address of the node. Of a device's addresses the node's
own comes first, then the first global one in the kernel's order. Source: linux/if_arp.h, linux/if_addr.h.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from reconciler.kernel.addresses import GET as GET_ADDRESS
from reconciler.kernel.addresses import IFA_ADDRESS, IFA_LOCAL, IFADDRMSG, SCOPE_UNIVERSE
from reconciler.kernel.link_messages import ALTNAME, IFINFOMSG, IFNAME, NO_STATISTICS, PROPERTIES
from reconciler.kernel.link_messages import GET as GET_LINK
from reconciler.kernel.netlink import Netlink, address, doing, pairs, text, u32
from reconciler.kernel.routes import GET as GET_ROUTE
from reconciler.kernel.routes import OIF, RTMSG
from reconciler.model.network import ALTNAME_PREFIX
from reconciler.model.outside import NodeDevice

Address = IPv4Address | IPv6Address
A = TypeVar("A", IPv4Address, IPv6Address)

_ETHERNET = 1  # ARPHRD_ETHER
_MAIN, _UNICAST = 254, 1  # RT_TABLE_MAIN, RTN_UNICAST
_UNUSABLE = 0x01 | 0x20 | 0x40 | 0x08  # IFA_F_TEMPORARY, DEPRECATED, TENTATIVE, DADFAILED


def node_devices(named: Sequence[str], own: Collection[Address]) -> dict[str, NodeDevice]:
    """name -> device, of the caller's namespace. `own`: addresses of the node; named ones that are absent are left out.

    Raises KernelError.
    """
    with doing("read this host's devices"), Netlink() as netlink:
        links = dict(_links(netlink))
        addresses = list(_addresses(netlink))
        reached = set() if named else {*_default(netlink), *(index for index, one in addresses if one in own)}
    chosen = [index for index, name in links.items() if name in named or index in reached]
    found = {}
    for index in chosen:
        mine = sorted((one for at, one in addresses if at == index), key=lambda one: one not in own)
        found[links[index]] = NodeDevice(_first(IPv4Address, mine), _first(IPv6Address, mine))
    return found


def _links(netlink: Netlink) -> Iterator[tuple[int, str]]:
    """Index and name of what carries Ethernet frames and is none of our own devices."""
    for body in netlink.dump(GET_LINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + NO_STATISTICS):
        _, kind, index, _, _ = IFINFOMSG.unpack_from(body)
        said = dict(pairs(body, IFINFOMSG.size))
        other = (text(value) for name, value in pairs(said.get(PROPERTIES, b"")) if name == ALTNAME)
        if kind == _ETHERNET and not any(name.startswith(ALTNAME_PREFIX) for name in other):
            yield index, text(said[IFNAME])


def _addresses(netlink: Netlink) -> Iterator[tuple[int, Address]]:
    for body in netlink.dump(GET_ADDRESS, IFADDRMSG.pack(0, 0, 0, 0, 0)):
        _, _, flags, scope, index = IFADDRMSG.unpack_from(body)
        said = dict(pairs(body, IFADDRMSG.size))
        value = said.get(IFA_LOCAL) or said.get(IFA_ADDRESS)
        if value is not None and scope == SCOPE_UNIVERSE and not (len(value) == 16 and flags & _UNUSABLE):
            yield index, address(value)


def _default(netlink: Netlink) -> Iterator[int]:
    """Indices of the links of default routes."""
    for body in netlink.dump(GET_ROUTE, RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, length, _, _, table, _, _, kind, _ = RTMSG.unpack_from(body)
        if not length and table == _MAIN and kind == _UNICAST:
            yield u32(dict(pairs(body, RTMSG.size)).get(OIF, b""))


def _first(family: type[A], addresses: Iterable[Address]) -> A | None:
    return next((one for one in addresses if isinstance(one, family)), None)
