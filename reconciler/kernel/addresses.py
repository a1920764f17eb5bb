"""Addresses we own on links, as a table.

Ownership is IFA_PROTO, which kernels have from 5.18. On an older one, the global addresses of links that carry our
alternative name are ours. Source: linux/if_addr.h, kernel net/ipv4/devinet.c, net/ipv6/addrconf.c.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from reconciler.errors import KernelError
from reconciler.kernel.link_messages import owned_indices
from reconciler.kernel.messages import ifaddrmsg
from reconciler.kernel.netlink import CREATE, EXCL, Message, Netlink, encoded, pairs
from reconciler.kernel.netlink_table import NetlinkTable, Ours
from reconciler.model.network import PROTOCOL, Address, AddressKey

NEW, DELETE, GET = 20, 21, 22  # RTM_*ADDR
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
IFA_ADDRESS, IFA_LOCAL, IFA_PROTO = 1, 2, 11
NO_DAD = 0x02  # IFA_F_NODAD
SCOPE_UNIVERSE, SCOPE_HOST = 0, 254
PROTO_SINCE = (5, 18)
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def marks_addresses(release: str) -> bool:
    """Whether a kernel release (`6.1.0-18-amd64`) has IFA_PROTO."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= PROTO_SINCE


class AddressesTable(NetlinkTable[AddressKey, Address]):
    name = "addresses"
    after: tuple[str, ...] = ("links", "sysctls")
    key_type: type = AddressKey
    row_type: type = Address
    deletion = DELETE
    several = Address()

    def __init__(self, namespaces: Callable[[], Iterable[str]] = tuple, *, marks: bool | None = None) -> None:
        super().__init__(namespaces)
        self._marks = marks_addresses(os.uname().release) if marks is None else marks

    def describe(self, key: AddressKey) -> str:
        return f"address {key.address} on {key.ifname}"

    def _read(self, netlink: Netlink) -> Iterator[tuple[AddressKey, Address, bytes]]:
        mine = frozenset() if self._marks else owned_indices(netlink)
        for body in netlink.dump(GET, IFADDRMSG.pack(0, 0, 0, 0, 0)):
            _, length, _, scope, index = IFADDRMSG.unpack_from(body)
            said = dict(pairs(body, IFADDRMSG.size))
            marked = said.get(IFA_PROTO) == bytes((PROTOCOL,))
            if marked if self._marks else index in mine and scope == SCOPE_UNIVERSE:
                yield AddressKey(netlink.netns, netlink.ifname(index), _interface(said, length)), Address(), body

    def _put(self, netlink: Netlink, key: AddressKey, row: Address, ours: Ours[AddressKey, Address]) -> None:
        body = self._message(netlink, key)
        try:
            netlink.write(Message(NEW, CREATE | EXCL, body))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            if key in ours():
                return
            narrower = [found for other, found in ours().items() if _same_but_length(other, key)]
            if not narrower:
                raise KernelError(f"{self.describe(key)} is there and is not ours") from error
            for found in narrower:  # IPv6 knows an address once, whatever its prefix
                self._remove(netlink, found)
            netlink.write(Message(NEW, CREATE | EXCL, body))

    def _message(self, netlink: Netlink, key: AddressKey) -> bytes:
        try:
            index = netlink.index(key.ifname)
        except OSError as error:
            raise OSError(error.errno, f"no link {key.ifname}") from error
        version = key.address.version
        fields = {
            "family": FAMILIES[version],
            "prefixlen": key.address.network.prefixlen,
            "flags": NO_DAD if version == 6 else 0,
            "scope": SCOPE_HOST if key.address.is_loopback else SCOPE_UNIVERSE,
            "index": index,
        }
        said: list[tuple[str, object]] = [("IFA_LOCAL", str(key.address.ip)), ("IFA_ADDRESS", str(key.address.ip))]
        if self._marks:
            said.append(("IFA_PROTO", PROTOCOL))
        return encoded(ifaddrmsg(), fields, said)


def _interface(said: dict[int, bytes], length: int) -> IPv4Interface | IPv6Interface:
    return ip_interface((said.get(IFA_LOCAL) or said[IFA_ADDRESS], length))


def _same_but_length(one: AddressKey, other: AddressKey) -> bool:
    return one.ifname == other.ifname and one.address.ip == other.address.ip
