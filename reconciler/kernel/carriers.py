"""Host ends that are up, as a table: a workload has a carrier once its programs run, and not a packet earlier.

A link of ours that is down has no row. `links` makes host ends that are down; nothing leaves a workload through those,
whatever the routes and sysctls of the host say. Source: kernel drivers/net/veth.c, veth_open and veth_close.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from reconciler.engine.rows import DictRows
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel import link_messages
from reconciler.kernel.link_messages import End, altname
from reconciler.kernel.netlink import Netlink, doing
from reconciler.model.network import Carrier

Guarded = Callable[[Collection[str]], Collection[str]]


class CarriersTable:
    """`guarded` tells which of these host ends run their programs in both directions; no other is raised."""

    name = "carriers"
    after: tuple[str, ...] = ("attachments", "sysctls")
    key_type: type = str
    row_type: type = Carrier
    flip: Flip | None = None

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded

    def live(self, only: Collection[Any] | None = None) -> DictRows:
        """Our links that are up, whoever raised them."""
        with doing("read carriers"), Netlink() as host:
            if only is None:
                found = link_messages.ends(host)
            else:
                found = [end for name in only if (end := link_messages.by_name(host, name)) is not None]
            return DictRows({end.name: Carrier() for end in found if _is_ours(end) and end.up})

    def write(self, upserts: Mapping[Any, Carrier], deletes: Collection[Any]) -> None:
        """Raises KernelError: no such link of ours, or its programs do not run on it; the others are raised first."""
        guarded = frozenset(self._guarded(upserts)) if upserts else frozenset()
        with doing("open netlink"), Netlink() as host:
            for name in deletes:
                with doing(f"take link {name} down"):
                    _set(host, name, up=False)
            for name in sorted(guarded & upserts.keys()):
                with doing(f"raise link {name}"):
                    if not _set(host, name, up=True):
                        raise KernelError(f"there is no link {name} of ours to raise")
        if bare := sorted(upserts.keys() - guarded):
            raise KernelError(f"link {bare[0]} stays down: its programs do not run on it")


def _is_ours(end: End) -> bool:
    return altname(end.name) in end.altnames


def _set(host: Netlink, name: str, up: bool) -> bool:
    """Whether there is such a link of ours."""
    end = link_messages.by_name(host, name)
    if end is None or not _is_ours(end):
        return False
    if end.up != up:
        host.write(link_messages.turning(end.index, up))
    if up:
        _activate(host, end)
    return True


def _activate(host: Netlink, end: End) -> None:
    """A new carrier counts for sending only once the kernel's link watch has seen it, at its leisure; asking for a link
    makes it look (linkwatch_sync_dev in rtnl_getlink, net/core/rtnetlink.c; before kernel 6.8 it does not). Else the
    first packet of a workload may be lost: its question for the gateway's MAC address, which it repeats after a second.
    """
    link_messages.by_index(host, end.index)
    if end.peer_nsid is not None:
        link_messages.by_index(host, end.peer_index, end.peer_nsid)
