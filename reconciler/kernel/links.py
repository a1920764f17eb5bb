"""Veth pairs we own, as a table keyed by the name of the host end.

Ownership is an alternative name on both ends. A pair whose workload's end is gone, in another namespace or under
another name is made anew; everything else is changed in place, so that what hangs on the link stays. Where an end of
another pair of ours has the name that an end needs, that pair goes: two workloads never share one interface. A host end
is made down and nothing here raises it: carriers.py does.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from reconciler.engine.rows import DictRows
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel import link_messages
from reconciler.kernel.link_messages import End, altname
from reconciler.kernel.netlink import Netlink, attribute, doing, pairs
from reconciler.kernel.netns import NamespaceMissing, opened, refuse_own
from reconciler.model.network import ALTNAME_PREFIX, HOST_NETNS, Link, VethPeer

GET_NSID = 90  # RTM_GETNSID, linux/net_namespace.h
RTGENMSG = bytes(4)  # struct rtgenmsg with its padding
NSID, NSID_FD = 1, 3  # NETNSA_NSID, NETNSA_FD
NOWHERE = VethPeer("", "", "")


class LinksTable:
    """`namespaces` tells, at each read, in which namespaces the workloads' ends may be."""

    name = "links"
    after: tuple[str, ...] = ()
    key_type: type = str
    row_type: type = Link
    flip: Flip | None = None

    def __init__(self, namespaces: Callable[[], Iterable[str]]) -> None:
        self._namespaces = namespaces

    def live(self, only: Collection[Any] | None = None) -> DictRows:
        """Our pairs as they are: both ends are read, through the host's own namespace."""
        with doing("read links"), Netlink() as host:
            if only is None:
                found = link_messages.veths(host)
            else:
                found = [end for name in only if (end := link_messages.by_name(host, name)) is not None]
            ours = {end.name: end for end in found if altname(end.name) in end.altnames}
            paths = self._paths_by_nsid(host) if ours else {}
            return DictRows({name: _link(host, end, paths) for name, end in ours.items()})

    def write(self, upserts: Mapping[Any, Link], deletes: Collection[Any]) -> None:
        """Raises KernelError: no such namespace, or a link of that name that is not ours."""
        with doing("open netlink"), Netlink() as host:
            for name, row in upserts.items():
                with doing(f"write link {name}"):
                    _put(host, name, row)
            for name in deletes:
                with doing(f"delete link {name}"):
                    end = link_messages.by_name(host, name)
                    if end is not None and altname(name) in end.altnames:
                        _delete(host, end)

    def _paths_by_nsid(self, host: Netlink) -> dict[int, str]:
        paths = {}
        for path in self._namespaces():
            if path != HOST_NETNS and (nsid := _nsid(host, path)) is not None:
                paths[nsid] = path
        return paths


def _link(host: Netlink, end: End, paths: Mapping[int, str]) -> Link:
    peer = NOWHERE
    if end.peer_nsid is not None and end.peer_nsid in paths:
        other = link_messages.by_index(host, end.peer_index, end.peer_nsid)
        if other is not None and altname(end.name) in other.altnames:
            mtu_bytes = 0 if other.mtu_bytes == end.mtu_bytes else other.mtu_bytes
            peer = VethPeer(paths[end.peer_nsid], other.name, other.mac, mtu_bytes, other.up)
    return Link(end.mac, end.mtu_bytes, peer)


def _put(host: Netlink, name: str, row: Link) -> None:
    if row.peer.netns == HOST_NETNS:
        raise KernelError(f"link {name}: the workload's end must be in a namespace of its own")
    refuse_own(row.peer.netns)
    with Netlink(row.peer.netns) as workload:
        end = link_messages.by_name(host, name)
        if end is not None and altname(name) not in end.altnames:
            raise KernelError(f"link {name} is there and is not ours: {_describe(end)}")
        peer = None if end is None else _peer(host, end, row)
        if end is not None and peer is None:
            _delete(host, end)
        if end is None or peer is None:
            _make(host, workload, name, row)
        else:
            _change(host, end, row.mac, row.mtu_bytes, end.up)
            _change(workload, peer, row.peer.mac, row.peer.mtu_bytes or row.mtu_bytes, row.peer.up)
            if altname(name) not in peer.altnames:
                workload.write(link_messages.marking(name, peer.index))


def _peer(host: Netlink, end: End, row: Link) -> End | None:
    """The other end, if it is where the row wants it."""
    if end.peer_nsid is None or end.peer_nsid != _nsid(host, row.peer.netns):
        return None
    found = link_messages.by_index(host, end.peer_index, end.peer_nsid)
    return found if found is not None and found.name == row.peer.name else None


def _make(host: Netlink, workload: Netlink, name: str, row: Link) -> None:
    taken = link_messages.by_name(workload, row.peer.name)
    predecessor = taken and _pair_of(host, taken, row.peer.netns)
    if predecessor:
        _delete(host, predecessor)
    elif taken is not None:
        raise KernelError(f"link {taken.name} in {row.peer.netns} is there and is not ours: {_describe(taken)}")
    with opened(row.peer.netns) as namespace:
        made, marked = host.write_together(link_messages.making(name, row, namespace))
    if made is not None:
        if marked is None:  # somebody made a link of that name this very moment
            host.write(link_messages.unmarking(name))
        raise made
    if marked is not None:  # another link has the alternative name
        host.write(link_messages.deleting(host.index(name)))
        raise marked
    peer = workload.index(row.peer.name)
    workload.write(link_messages.marking(name, peer))
    workload.write(link_messages.changing(peer, row.peer.mac, row.peer.mtu_bytes or row.mtu_bytes, row.peer.up))


def _pair_of(host: Netlink, end: End, netns: str) -> End | None:
    """The host end, if this is a workload's end of a pair of ours; one of another host's is not."""
    nsid = _nsid(host, netns)
    for name in end.altnames:
        found = link_messages.by_name(host, name.removeprefix(ALTNAME_PREFIX))
        if found is not None and altname(found.name) == name and name in found.altnames:
            return found if (found.peer_index, found.peer_nsid) == (end.index, nsid) else None
    return None


def _change(netlink: Netlink, end: End, mac: str, mtu_bytes: int, up: bool) -> None:
    if (end.mac, end.mtu_bytes, end.up) != (mac, mtu_bytes, up):
        netlink.write(link_messages.changing(end.index, "" if mac == end.mac else mac, mtu_bytes, up))


def _delete(host: Netlink, end: End) -> None:
    try:
        host.write(link_messages.deleting(end.index))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _describe(end: End) -> str:
    return f"{end.kind or 'a device'}, {end.mac}, without the alternative name {altname(end.name)}"


def _nsid(host: Netlink, path: str) -> int | None:
    """The id that the host's namespace has given to the one at `path`; None if it gave none, or none is there."""
    try:
        with opened(path) as namespace:
            answer = host.ask(GET_NSID, RTGENMSG + attribute(NSID_FD, struct.pack("=I", namespace)))
    except (NamespaceMissing, OSError):
        return None
    nsid: int = struct.unpack("=i", dict(pairs(answer, len(RTGENMSG)))[NSID])[0]
    return nsid if nsid >= 0 else None
