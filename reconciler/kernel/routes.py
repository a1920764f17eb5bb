"""Routes we own in the kernel, as a table.

Ownership is the route protocol number: routes of another protocol are never shown, changed or deleted. The kernel
filters the dump by it, so that a host with a full routing table is read in microseconds.
Source: linux/rtnetlink.h (struct rtmsg), kernel net/ipv4/fib_frontend.c, net/ipv6/route.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.errors import KernelError
from reconciler.kernel.messages import rtmsg
from reconciler.kernel.netlink import (
    CREATE,
    EXCL,
    REPLACE,
    Message,
    Netlink,
    address,
    attribute,
    encoded,
    network,
    pairs,
    u32,
)
from reconciler.kernel.netlink_table import NetlinkTable, Ours
from reconciler.model.network import PROTOCOL, Route, RouteKey

NEW, DELETE, GET = 24, 25, 26  # RTM_*ROUTE
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
DST, OIF, GATEWAY, PRIORITY, PREFSRC, METRICS, MULTIPATH, TABLE, VIA, ENCAP, NH_ID = 1, 4, 5, 6, 7, 8, 9, 15, 18, 22, 30
UNSAYABLE = frozenset((MULTIPATH, ENCAP, NH_ID))
RTAX_MTU = 2
ONLINK = 4  # RTNH_F_ONLINK
NOT_SAID = 0x1 | 0x10  # RTNH_F_DEAD, RTNH_F_LINKDOWN: read only
CLONED = 0x200  # RTM_F_CLONED
KINDS = {1: "unicast", 2: "local", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
KIND_NUMBERS = {kind: number for number, kind in KINDS.items()}
DROPS = frozenset(("blackhole", "unreachable", "prohibit"))
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
CACHED = 8192  # messages: a dump differs little from the last one, and decoding a route costs 5 µs
LOCAL_TABLE = 255  # RT_TABLE_LOCAL
LOCAL, ANYCAST = 2, 4  # RTN_*
BY_KERNEL = 2  # RTPROT_KERNEL: it follows an address of a link
OTHER = Route("", kind="other")
FAMILIES = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}  # and what a default route's address is


class RoutesTable(NetlinkTable[RouteKey, Route]):
    name = "routes"
    after: tuple[str, ...] = ("addresses", "carriers")
    key_type: type = RouteKey
    row_type: type = Route
    deletion = DELETE
    several = OTHER

    def describe(self, key: RouteKey) -> str:
        return f"route {key.destination} table {key.table} metric {key.priority}"

    def _read(self, netlink: Netlink) -> Iterator[tuple[RouteKey, Route, bytes]]:
        ifnames: dict[int, str] = {}
        for body in netlink.dump(GET, RTMSG.pack(0, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)):
            index = _owned_index(body)
            if index is None:
                continue
            if index not in ifnames:
                ifnames[index] = netlink.ifname(index)
            yield *_decoded(netlink.netns, ifnames[index], body), body

    def _put(self, netlink: Netlink, key: RouteKey, row: Route, ours: Ours[RouteKey, Route]) -> None:
        body = _message(netlink, key, row)
        try:
            netlink.write(Message(NEW, CREATE | EXCL, body))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            self._change(netlink, key, row, body, ours)

    def _change(self, netlink: Netlink, key: RouteKey, row: Route, body: bytes, ours: Ours[RouteKey, Route]) -> None:
        found = ours().get(key, [])
        if not found:
            raise KernelError(f"{self.describe(key)} is there and is not ours: {_owner(netlink, key)}")
        if len(found) > 1 or found[0][0] == OTHER:  # a replacement would leave the rest of them
            self._remove(netlink, found)
            netlink.write(Message(NEW, CREATE | EXCL, body))
        elif found[0][0] != row:
            netlink.write(Message(NEW, CREATE | REPLACE, body))

    def _ordered(self, upserts: Mapping[RouteKey, Route]) -> Iterable[RouteKey]:
        """A gateway must be reachable when its route is made: those without one come first."""
        return sorted(upserts, key=lambda key: upserts[key].gateway is not None)

    def _echo(self, body: bytes) -> bytes:
        *head, flags = RTMSG.unpack_from(body)
        return RTMSG.pack(*head, flags & ~NOT_SAID) + body[RTMSG.size :]


@lru_cache(maxsize=CACHED)
def host_network(body: bytes) -> IPv4Network | IPv6Network | None:
    """What a route makes this host's own: addresses of links, loopback and link-local ones apart. None: nothing."""
    family, length, _, _, table, protocol, _, kind, flags = RTMSG.unpack_from(body)
    if table != LOCAL_TABLE or flags & CLONED or family not in FAMILIES or protocol == PROTOCOL or not length:
        return None
    if kind != ANYCAST and (kind != LOCAL or protocol == BY_KERNEL):
        return None
    found = network(dict(pairs(body, RTMSG.size)).get(DST, FAMILIES[family]), length)
    return None if found.is_loopback or (family == socket.AF_INET6 and found.is_link_local) else found


def owned_key(netns: str, body: bytes) -> RouteKey | None:
    """The key of a route of ours; None of any other."""
    return None if _owned_index(body) is None else _decoded(netns, "", body)[0]


@lru_cache(maxsize=CACHED)
def _owned_index(body: bytes) -> int | None:
    """The index of the route's link, 0 if it has none; None if the route is not ours."""
    family, _, _, _, _, protocol, _, _, flags = RTMSG.unpack_from(body)
    if protocol != PROTOCOL or flags & CLONED or family not in FAMILIES:
        return None
    return u32(dict(pairs(body, RTMSG.size)).get(OIF, b""))


@lru_cache(maxsize=CACHED)
def _decoded(netns: str, ifname: str, body: bytes) -> tuple[RouteKey, Route]:
    family, length, _, _, table, _, _, kind, flags = RTMSG.unpack_from(body)
    said = dict(pairs(body, RTMSG.size))
    destination = network(said.get(DST, FAMILIES[family]), length)
    key = RouteKey(netns, destination, u32(said[TABLE]) or table, u32(said.get(PRIORITY, b"")))
    return key, _route(KINDS.get(kind, "other"), flags, ifname, said)


def _route(kind: str, flags: int, ifname: str, said: Mapping[int, bytes]) -> Route:
    if kind == "other" or not UNSAYABLE.isdisjoint(said):
        return OTHER
    return Route(
        ifname="" if kind in DROPS else ifname,  # IPv6 has them on the loopback
        gateway=_gateway(said),
        onlink=bool(flags & ONLINK),
        source=address(said[PREFSRC]) if PREFSRC in said else None,
        kind=kind,
        mtu_bytes=u32(dict(pairs(said[METRICS])).get(RTAX_MTU, b"")) if METRICS in said else 0,
    )


def _gateway(said: Mapping[int, bytes]) -> IPv4Address | IPv6Address | None:
    if GATEWAY in said:
        return address(said[GATEWAY])
    return address(said[VIA][2:]) if VIA in said else None


def _message(netlink: Netlink, key: RouteKey, row: Route) -> bytes:
    if row.kind not in KIND_NUMBERS:
        raise KernelError(f"a route of kind {row.kind} cannot be written")
    version = key.destination.version
    fields = {
        "family": socket.AF_INET if version == 4 else socket.AF_INET6,
        "dst_len": key.destination.prefixlen,
        "table": key.table if key.table < 256 else 0,
        "proto": PROTOCOL,
        "scope": _scope(row),
        "type": KIND_NUMBERS[row.kind],
        "flags": ONLINK if row.onlink else 0,
    }
    said: list[tuple[str, object]] = [("RTA_TABLE", key.table), ("RTA_PRIORITY", key.priority)]
    if key.destination.prefixlen:
        said.append(("RTA_DST", str(key.destination.network_address)))
    if row.ifname:
        said.append(("RTA_OIF", _index(netlink, row.ifname)))
    if row.gateway is not None and row.gateway.version == version:
        said.append(("RTA_GATEWAY", str(row.gateway)))
    elif row.gateway is not None:
        said.append(("RTA_VIA", {"family": socket.AF_INET6, "addr": str(row.gateway)}))
    if row.source is not None:
        said.append(("RTA_PREFSRC", str(row.source)))
    if row.mtu_bytes:
        said.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", row.mtu_bytes)]}))
    return encoded(rtmsg(), fields, said)


def _scope(row: Route) -> int:
    """As iproute2 chooses it; IPv6 ignores it."""
    if row.kind == "local":
        return SCOPE_HOST
    return SCOPE_LINK if row.kind == "unicast" and row.gateway is None else SCOPE_UNIVERSE


def _index(netlink: Netlink, ifname: str) -> int:
    try:
        return netlink.index(ifname)
    except OSError as error:
        raise OSError(error.errno, f"no link {ifname}") from error


def _owner(netlink: Netlink, key: RouteKey) -> str:
    """Whose route has the key, for a message: this reads the whole table."""
    family = socket.AF_INET if key.destination.version == 4 else socket.AF_INET6
    request = RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(TABLE, struct.pack("=I", key.table))
    for body in netlink.dump(GET, request):
        said = dict(pairs(body, RTMSG.size))
        destination = network(said.get(DST, FAMILIES[family]), body[1])
        if destination == key.destination and u32(said.get(PRIORITY, b"")) == key.priority:
            return f"protocol {body[5]}, dev {netlink.ifname(u32(said.get(OIF, b''))) or '(none)'}"
    return "it went away meanwhile"
