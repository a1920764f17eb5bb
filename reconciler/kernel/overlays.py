"""The host's device of the overlay, as a table keyed by its name.

Ownership is an alternative name. What of a device cannot be changed in place (its kind, its port) is made anew. It is
made down, and carriers.py raises it once its programs run: what would come out of it before that, nobody looked at.
Source: kernel drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from reconciler.engine.rows import DictRows
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel import link_messages
from reconciler.kernel.link_messages import End, altname
from reconciler.kernel.netlink import Netlink, doing
from reconciler.model.network import OverlayDevice


class OverlaysTable:
    name = "overlays"
    after: tuple[str, ...] = ()
    key_type: type = str
    row_type: type = OverlayDevice
    flip: Flip | None = None

    def live(self, only: Collection[Any] | None = None) -> DictRows:
        with doing("read overlay devices"), Netlink() as host:
            found = [end for kind in link_messages.OVERLAY_KINDS for end in link_messages.of_kind(host, kind)]
            ours = (end for end in found if _is_ours(end) and (only is None or end.name in only))
            return DictRows({end.name: _row(end) for end in ours})

    def write(self, upserts: Mapping[Any, OverlayDevice], deletes: Collection[Any]) -> None:
        """Raises KernelError: a link of that name that is not ours, or the port is taken."""
        with doing("open netlink"), Netlink() as host:
            for name in deletes:
                with doing(f"delete link {name}"):
                    end = link_messages.by_name(host, name)
                    if end is not None and _is_ours(end):
                        host.write(link_messages.deleting(end.index))
            for name, row in upserts.items():
                with doing(f"write link {name}"):
                    _put(host, name, row)


def _put(host: Netlink, name: str, row: OverlayDevice) -> None:
    end = link_messages.by_name(host, name)
    if end is not None and not _is_ours(end):
        raise KernelError(f"link {name} is there and is not ours: {end.kind or 'a device'}, {end.mac}")
    if end is not None and (end.kind, end.port) == (row.kind, row.port):
        if (end.mac, end.mtu_bytes) != (row.mac, row.mtu_bytes):
            host.write(link_messages.changing(end.index, "" if row.mac == end.mac else row.mac, row.mtu_bytes, end.up))
        return
    if end is not None:
        host.write(link_messages.deleting(end.index))
    made, marked = host.write_together(link_messages.making_overlay(name, row))
    if made is not None:
        raise made
    if marked is not None:
        host.write(link_messages.deleting(host.index(name)))
        raise marked


def _is_ours(end: End) -> bool:
    return altname(end.name) in end.altnames


def _row(end: End) -> OverlayDevice:
    return OverlayDevice(end.kind, end.mac, end.mtu_bytes, end.port)
