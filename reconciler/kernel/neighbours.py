"""Permanent neighbours we own, as a table.

Ownership is NDA_PROTOCOL. What the kernel learned itself gives way to ours; a permanent entry of somebody else does
not. Source: linux/neighbour.h, kernel net/core/neighbour.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from reconciler.errors import KernelError
from reconciler.kernel.messages import ndmsg
from reconciler.kernel.netlink import CREATE, EXCL, REPLACE, Message, Netlink, address, attribute, encoded, pairs
from reconciler.kernel.netlink_table import NetlinkTable, Ours
from reconciler.model.network import PROTOCOL, Neighbour, NeighbourKey

NEW, DELETE, GET = 28, 29, 30  # RTM_*NEIGH
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NDA_DST, NDA_LLADDR, NDA_PROTOCOL = 1, 2, 12
PERMANENT = 0x80  # NUD_PERMANENT
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class NeighboursTable(NetlinkTable[NeighbourKey, Neighbour]):
    name = "neighbours"
    after: tuple[str, ...] = ("carriers",)
    key_type: type = NeighbourKey
    row_type: type = Neighbour
    deletion = DELETE
    several = Neighbour("")

    def describe(self, key: NeighbourKey) -> str:
        return f"neighbour {key.address} on {key.ifname}"

    def _read(self, netlink: Netlink) -> Iterator[tuple[NeighbourKey, Neighbour, bytes]]:
        """An entry of ours that is no longer permanent reads as not there: writing it again makes it so."""
        for body in netlink.dump(GET, NDMSG.pack(0, 0, 0, 0, 0)):
            family, index, state, _, _ = NDMSG.unpack_from(body)
            if not state & PERMANENT or family not in FAMILIES.values():
                continue
            said = dict(pairs(body, NDMSG.size))
            if said.get(NDA_PROTOCOL) == bytes((PROTOCOL,)):
                key = NeighbourKey(netlink.netns, netlink.ifname(index), address(said[NDA_DST]))
                yield key, Neighbour(said.get(NDA_LLADDR, b"").hex(":")), body

    def _put(self, netlink: Netlink, key: NeighbourKey, row: Neighbour, ours: Ours[NeighbourKey, Neighbour]) -> None:
        try:
            index = netlink.index(key.ifname)
        except OSError as error:
            raise OSError(error.errno, f"no link {key.ifname}") from error
        body = _message(key, row, index)
        try:
            netlink.write(Message(NEW, CREATE | EXCL, body))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            self._refuse_another_owner(netlink, key, index)
            netlink.write(Message(NEW, CREATE | REPLACE, body))

    def _refuse_another_owner(self, netlink: Netlink, key: NeighbourKey, index: int) -> None:
        request = NDMSG.pack(FAMILIES[key.address.version], index, 0, 0, 0) + attribute(NDA_DST, key.address.packed)
        found = netlink.ask(GET, request)
        said = dict(pairs(found, NDMSG.size))
        owner = said.get(NDA_PROTOCOL, b"\0")[0]
        if NDMSG.unpack_from(found)[2] & PERMANENT and owner != PROTOCOL:
            mac = said.get(NDA_LLADDR, b"").hex(":")
            raise KernelError(f"{self.describe(key)} is there and is not ours: protocol {owner}, {mac}, permanent")


def _message(key: NeighbourKey, row: Neighbour, index: int) -> bytes:
    fields = {"family": FAMILIES[key.address.version], "ifindex": index, "state": PERMANENT}
    return encoded(
        ndmsg(),
        fields,
        [("NDA_DST", str(key.address)), ("NDA_LLADDR", row.mac), ("NDA_PROTOCOL", PROTOCOL)],
    )
