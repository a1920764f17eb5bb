"""What changes in a namespace, as netlink tells it: a trigger for the daemon, with the writer's port id.

An event only names what may be dirty; the pass that it starts compares whole tables. The open socket keeps its
namespace alive, so close it when `stale` says that the path has another namespace, or none.
Source: linux/rtnetlink.h (enum rtnetlink_groups); pyroute2 is not used here, see netlink.py.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reconciler.kernel import addresses, link_messages, neighbours, netns, routes, rules
from reconciler.kernel.netlink import (
    ADD_MEMBERSHIP,
    BUFFER_BYTES,
    REPLACE,
    SOL_NETLINK,
    Netlink,
    frames,
    network,
    pairs,
    text,
    u32,
)
from reconciler.kernel.netlink import address as ip_address
from reconciler.kernel.netlink_writers import process_number
from reconciler.model.network import HOST_NETNS, PROTOCOL, RouteKey

# Links, neighbours; addresses, routes, rules, configuration of IPv4; the same of IPv6
GROUPS = (1, 3, 5, 7, 8, 24, 9, 11, 19, 25)
NEW_NETCONF = 80  # RTM_NEWNETCONF, linux/netconf.h
NETCONFMSG = struct.Struct("=Bxxx")  # family
NETCONFA_IFINDEX = 1
SO_RCVBUFFORCE = 33
ROOM_BYTES = 4 << 20
DATAGRAMS_AT_ONCE = 4096
EVERYTHING = "everything"
OURS = bytes((PROTOCOL,))

_LINKS = frozenset(("links", "overlays", "carriers"))
_ALL = _LINKS | {"sysctls", "addresses", "attachments", "endpoints", "tunnels", "routes", "rules", "neighbours"}
# A link that is made anew has another index. One that goes takes what hangs on it along without a word (kernel
# net/ipv4/fib_frontend.c, fib_disable_ip), and so does an address with the routes that have it as their source.
DIRTIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        EVERYTHING: _ALL,
        "links": _ALL - {"rules"},
        "sysctls": frozenset(("sysctls",)),
        "addresses": frozenset(("addresses", "routes")),
        "routes": frozenset(("routes", "addresses")),  # a local one tells of an address of the host
        "rules": frozenset(("rules",)),
        "neighbours": frozenset(("neighbours",)),
    }
)


@dataclass(frozen=True, slots=True)
class NetlinkEvent:
    """`kind` is the table that changed, or EVERYTHING after a loss; `DIRTIES[kind]` are the tables to look at.

    `port_id` is the writer's (0: the kernel itself, or not told, as for links); `pid` is the process it names, if
    the number says so by itself: `netlink_writers.process_of` tells more, at more cost. `gone`: the route of ours that
    was deleted.
    """

    kind: str
    summary: str
    port_id: int = 0
    pid: int | None = None
    gone: RouteKey | None = None


class NetlinkEvents:
    """A non-blocking subscription to one namespace; `fileno()` is for the caller's event loop."""

    def __init__(self, netns_path: str = HOST_NETNS, *, room_bytes: int = ROOM_BYTES) -> None:
        self._path = netns_path
        self._identity = netns.identity(netns_path)
        self._netlink = Netlink(netns_path)
        self._socket = self._netlink.socket
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room_bytes)
        for group in GROUPS:
            self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def stale(self) -> bool:
        """Whether the path no longer names the namespace that this listens to."""
        return netns.identity(self._path) != self._identity

    def read(self) -> list[NetlinkEvent]:
        """What has arrived, at most `DATAGRAMS_AT_ONCE` datagrams; empty if nothing has. Never blocks."""
        events: list[NetlinkEvent] = []
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                datagram, (sender, _) = self._socket.recvfrom(BUFFER_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                events.append(NetlinkEvent(EVERYTHING, "events were lost: the socket was full"))
                continue
            if sender == 0:  # from the kernel
                events += self._events(datagram)
        return events

    def _events(self, datagram: bytes) -> list[NetlinkEvent]:
        events = []
        for kind, flags, _, port_id, body in frames(datagram):
            if kind not in _TELLERS:
                continue
            table, tell = _TELLERS[kind]
            summary = tell(self._netlink, kind, flags, body)
            if summary is not None:
                gone = routes.owned_key(self._path, body) if kind == routes.DELETE else None
                events.append(NetlinkEvent(table, summary, port_id, process_number(port_id), gone))
        return events


Teller = Callable[[Netlink, int, int, bytes], str | None]  # None: it cannot concern a row of ours


def _tell_link(netlink: Netlink, kind: int, flags: int, body: bytes) -> str | None:
    if body[0] != socket.AF_UNSPEC:  # of a bridge's port
        return None
    said = dict(pairs(body, link_messages.IFINFOMSG.size))
    return f"link {text(said[link_messages.IFNAME])} {'deleted' if kind == link_messages.DELETE else 'changed'}"


def _tell_address(netlink: Netlink, kind: int, flags: int, body: bytes) -> str | None:
    _, length, _, _, index = addresses.IFADDRMSG.unpack_from(body)
    said = dict(pairs(body, addresses.IFADDRMSG.size))
    ip = ip_address(said.get(addresses.IFA_LOCAL) or said[addresses.IFA_ADDRESS])
    verb = "deleted" if kind == addresses.DELETE else "added"
    return f"address {ip}/{length} on {netlink.ifname(index) or f'link number {index}'} {verb}"


def _tell_route(netlink: Netlink, kind: int, flags: int, body: bytes) -> str | None:
    family, length, _, _, _, protocol, _, _, route_flags = routes.RTMSG.unpack_from(body)
    if family not in routes.FAMILIES or route_flags & routes.CLONED:
        return None
    if (
        protocol != PROTOCOL and not flags & REPLACE and routes.host_network(body) is None
    ):  # a replacement says nothing of whose route it replaced
        return None
    said = dict(pairs(body, routes.RTMSG.size))
    destination = network(said.get(routes.DST, routes.FAMILIES[family]), length)
    return f"route {destination} {_verb(kind == routes.DELETE, flags)}"


def _tell_rule(netlink: Netlink, kind: int, flags: int, body: bytes) -> str | None:
    if body[0] not in rules.FAMILIES.values():
        return None
    priority = u32(dict(pairs(body, rules.RULE_HEADER.size)).get(rules.PRIORITY, b""))
    version = 4 if body[0] == rules.FAMILIES[4] else 6
    return f"IPv{version} rule {priority} {_verb(kind == rules.DELETE, flags)}"


def _tell_neighbour(netlink: Netlink, kind: int, flags: int, body: bytes) -> str | None:
    said = dict(pairs(body, neighbours.NDMSG.size))
    if said.get(neighbours.NDA_PROTOCOL) != OURS:
        return None
    index = neighbours.NDMSG.unpack_from(body)[1]
    ip = ip_address(said[neighbours.NDA_DST])
    ifname = netlink.ifname(index) or f"link number {index}"
    return f"neighbour {ip} on {ifname} {'deleted' if kind == neighbours.DELETE else 'changed'}"


def _tell_configuration(netlink: Netlink, kind: int, flags: int, body: bytes) -> str | None:
    """Forwarding and reverse path filtering are told; other sysctls change in silence."""
    index = struct.unpack("=i", dict(pairs(body, NETCONFMSG.size))[NETCONFA_IFINDEX])[0]
    where = {-1: "all", -2: "default"}.get(index) or netlink.ifname(index) or f"link number {index}"
    return f"network configuration of {where} changed"


def _verb(deleted: bool, flags: int) -> str:
    if deleted:
        return "deleted"
    return "replaced" if flags & REPLACE else "added"


_TELLERS: Mapping[int, tuple[str, Teller]] = {
    link_messages.NEW: ("links", _tell_link),
    link_messages.DELETE: ("links", _tell_link),
    addresses.NEW: ("addresses", _tell_address),
    addresses.DELETE: ("addresses", _tell_address),
    routes.NEW: ("routes", _tell_route),
    routes.DELETE: ("routes", _tell_route),
    rules.NEW: ("rules", _tell_rule),
    rules.DELETE: ("rules", _tell_rule),
    NEW_NETCONF: ("sysctls", _tell_configuration),
    neighbours.NEW: ("neighbours", _tell_neighbour),
    neighbours.DELETE: ("neighbours", _tell_neighbour),
}
