"""One end of a veth pair as netlink tells it, and the messages that make, mark and change one.

Source: linux/if_link.h, kernel net/core/rtnetlink.c, drivers/net/veth.c.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from reconciler.kernel.messages import ifinfmsg
from reconciler.kernel.netlink import CREATE, EXCL, Message, Netlink, attribute, encoded, pairs, text, u32
from reconciler.model.network import ALTNAME_PREFIX, Link, OverlayDevice

NEW, DELETE, GET, NEW_PROPERTY, DELETE_PROPERTY = 16, 17, 18, 108, 109  # RTM_*LINK, RTM_*LINKPROP
IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
MAC, IFNAME, MTU, LINK, LINKINFO, EXT_MASK, LINK_NSID, TARGET_NSID, PROPERTIES, ALTNAME = (
    1, 3, 4, 5, 18, 29, 37, 46, 52, 53,
)  # fmt: skip
INFO_KIND, INFO_DATA = 1, 2
VXLAN_PORT = 15  # IFLA_VXLAN_PORT
UP = 1  # IFF_UP
NO_STATISTICS = attribute(EXT_MASK, struct.pack("=I", 8))  # RTEXT_FILTER_SKIP_STATS
NO_ARP = 0x80  # IFF_NOARP
OVERLAY_KINDS = ("vxlan", "ifb")


@dataclass(frozen=True, slots=True)
class End:
    """`peer_nsid` is the id, in the namespace of this end, of the peer's namespace; None: the peer is in the same."""

    index: int
    name: str
    mac: str
    mtu_bytes: int
    up: bool
    kind: str
    peer_index: int
    peer_nsid: int | None
    altnames: tuple[str, ...]
    port: int = 0  # of a device that tunnels, its UDP port

    @property
    def ours(self) -> bool:
        return any(name.startswith(ALTNAME_PREFIX) for name in self.altnames)


def altname(host_name: str) -> str:
    """What marks both ends of the pair whose host end has that name."""
    return ALTNAME_PREFIX + host_name


def veths(netlink: Netlink) -> list[End]:
    """All of the socket's namespace, whoever's."""
    return of_kind(netlink, "veth")


def ends(netlink: Netlink) -> list[End]:
    """Every link of a kind that we make."""
    return [end for kind in ("veth", *OVERLAY_KINDS) for end in of_kind(netlink, kind)]


def of_kind(netlink: Netlink, kind: str) -> list[End]:
    only = attribute(LINKINFO, attribute(INFO_KIND, kind.encode()))
    return [_end(body) for body in netlink.dump(GET, IFINFOMSG.pack(0, 0, 0, 0, 0) + NO_STATISTICS + only)]


def owned_indices(netlink: Netlink) -> frozenset[int]:
    return frozenset(end.index for end in ends(netlink) if end.ours)


def by_name(netlink: Netlink, name: str) -> End | None:
    """The link of that name and of no other: an alternative name does not count."""
    request = IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(IFNAME, name.encode() + b"\0") + NO_STATISTICS
    end = _ask(netlink, request)
    return end if end is not None and end.name == name else None


def by_index(netlink: Netlink, index: int, nsid: int | None = None) -> End | None:
    """A link of the socket's namespace, or of the one that has the id `nsid` there."""
    target = b"" if nsid is None else attribute(TARGET_NSID, struct.pack("=i", nsid))
    return _ask(netlink, IFINFOMSG.pack(0, 0, index, 0, 0) + target + NO_STATISTICS)


def making(host_name: str, link: Link, peer_namespace: int) -> tuple[Message, Message]:
    """A pair with both ends in place and down, the host end marked; `peer_namespace` is an open file of it.

    The workload's end could not be up: veth_open has no peer before both are registered (ENOTCONN).
    """
    peer = link.peer
    peer_said = _said(peer.name, peer.mac, peer.mtu_bytes or link.mtu_bytes)
    inner = {"attrs": [*peer_said, ("IFLA_NET_NS_FD", peer_namespace)]}
    data = {"attrs": [("VETH_INFO_PEER", inner)]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    said = [*_said(host_name, link.mac, link.mtu_bytes), ("IFLA_LINKINFO", info)]
    body = encoded(ifinfmsg(), {}, said)
    return Message(NEW, CREATE | EXCL, body), marking(host_name)


def making_overlay(name: str, row: OverlayDevice) -> tuple[Message, Message]:
    """The device down, and marked. Of vxlan each packet tells by itself where it goes and where it came from."""
    info: list[tuple[str, object]] = [("IFLA_INFO_KIND", row.kind)]
    if row.kind == "vxlan":
        data = [("IFLA_VXLAN_COLLECT_METADATA", 1), ("IFLA_VXLAN_LEARNING", 0), ("IFLA_VXLAN_PORT", row.port)]
        info.append(("IFLA_INFO_DATA", {"attrs": data}))
    said = [*_said(name, row.mac, row.mtu_bytes), ("IFLA_LINKINFO", {"attrs": info})]
    body = encoded(ifinfmsg(), {"flags": NO_ARP, "change": NO_ARP}, said)
    return Message(NEW, CREATE | EXCL, body), marking(name)


def marking(host_name: str, index: int = 0) -> Message:
    """For the link of that index; 0: for the host end itself, by its name."""
    return Message(NEW_PROPERTY, CREATE | EXCL, _property(host_name, index))


def unmarking(host_name: str) -> Message:
    return Message(DELETE_PROPERTY, 0, _property(host_name, 0))


def changing(index: int, mac: str, mtu_bytes: int, up: bool) -> Message:
    """`mac` is '' if it stays: a link that is told its address forgets its neighbours, permanent ones too."""
    said: list[tuple[str, object]] = [("IFLA_MTU", mtu_bytes)]
    if mac:
        said.append(("IFLA_ADDRESS", mac))
    return Message(NEW, 0, encoded(ifinfmsg(), {"index": index, "flags": UP * up, "change": UP}, said))


def turning(index: int, up: bool) -> Message:
    return Message(NEW, 0, encoded(ifinfmsg(), {"index": index, "flags": UP * up, "change": UP}, []))


def deleting(index: int) -> Message:
    return Message(DELETE, 0, encoded(ifinfmsg(), {"index": index}, []))


def _property(host_name: str, index: int) -> bytes:
    said: list[tuple[str, object]] = [("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", altname(host_name))]})]
    if not index:
        said.append(("IFLA_IFNAME", host_name))
    return encoded(ifinfmsg(), {"index": index}, said)


def _said(name: str, mac: str, mtu_bytes: int) -> list[tuple[str, object]]:
    return [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu_bytes)]


def _ask(netlink: Netlink, request: bytes) -> End | None:
    try:
        return _end(netlink.ask(GET, request))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL):  # EINVAL: the namespace id has gone
            return None
        raise


def _end(body: bytes) -> End:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    said = dict(pairs(body, IFINFOMSG.size))
    nsid = said.get(LINK_NSID)
    info = dict(pairs(said.get(LINKINFO, b"")))
    data = dict(pairs(info.get(INFO_DATA, b"")))
    return End(
        index=index,
        name=text(said[IFNAME]),
        mac=said.get(MAC, b"").hex(":"),
        mtu_bytes=u32(said[MTU]),
        up=bool(flags & UP),
        kind=text(info.get(INFO_KIND, b"")),
        peer_index=u32(said.get(LINK, b"")),
        peer_nsid=None if nsid is None else struct.unpack("=i", nsid)[0],
        altnames=tuple(text(value) for kind, value in pairs(said.get(PROPERTIES, b"")) if kind == ALTNAME),
        port=int.from_bytes(data.get(VXLAN_PORT, b""), "big") if info.get(INFO_KIND) == b"vxlan\0" else 0,
    )
