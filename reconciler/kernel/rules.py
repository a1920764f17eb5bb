"""Policy routing rules we own, as a table.

Ownership is FRA_PROTOCOL. A rule cannot be replaced: the new one is added, then the old one goes, so that no packet
finds neither. Source: linux/fib_rules.h, kernel net/core/fib_rules.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network

from reconciler.errors import KernelError
from reconciler.kernel.messages import fibmsg
from reconciler.kernel.netlink import CREATE, EXCL, Message, Netlink, encoded, network, pairs, text, u32
from reconciler.kernel.netlink_table import NetlinkTable, Ours
from reconciler.model.network import PROTOCOL, Rule, RuleKey

NEW, DELETE, GET = 32, 33, 34  # RTM_*RULE
RULE_HEADER = struct.Struct("=BBBBBxxBI")  # family, dst_len, src_len, tos, table, action, flags
DST, SRC, IIFNAME, PRIORITY, FWMARK, SUPPRESS_PREFIXLEN, TABLE, FWMASK, PAD, FRA_PROTOCOL = (
    1, 2, 3, 6, 10, 14, 15, 16, 18, 21,
)  # fmt: skip
SAYABLE = frozenset((DST, SRC, IIFNAME, PRIORITY, FWMARK, SUPPRESS_PREFIXLEN, TABLE, FWMASK, PAD, FRA_PROTOCOL))
NO_SUPPRESSION = 0xFFFFFFFF  # what SUPPRESS_PREFIXLEN says when it is not set
TO_TABLE = 1  # FR_ACT_TO_TBL
INVERT = 2  # FIB_RULE_INVERT
VERSIONS = {socket.AF_INET: 4, socket.AF_INET6: 6}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
OTHER = Rule(table=0)


class RulesTable(NetlinkTable[RuleKey, Rule]):
    name = "rules"
    after: tuple[str, ...] = ()
    key_type: type = RuleKey
    row_type: type = Rule
    deletion = DELETE
    several = OTHER

    def describe(self, key: RuleKey) -> str:
        return f"IPv{key.family} rule {key.priority}"

    def _read(self, netlink: Netlink) -> Iterator[tuple[RuleKey, Rule, bytes]]:
        for body in netlink.dump(GET, RULE_HEADER.pack(0, 0, 0, 0, 0, 0, 0)):
            header = RULE_HEADER.unpack_from(body)
            said = dict(pairs(body, RULE_HEADER.size))
            if said.get(FRA_PROTOCOL) == bytes((PROTOCOL,)) and header[0] in VERSIONS:
                key = RuleKey(netlink.netns, VERSIONS[header[0]], u32(said.get(PRIORITY, b"")))
                yield key, _rule(header, said), body

    def _put(self, netlink: Netlink, key: RuleKey, row: Rule, ours: Ours[RuleKey, Rule]) -> None:
        if row.table == OTHER.table:
            raise KernelError(f"{self.describe(key)} cannot be written: it has no table")
        found = ours().get(key, [])
        others = [(old, body) for old, body in found if old != row]
        wanted = Message(NEW, CREATE | EXCL, _message(key, row))
        try:
            if len(found) == len(others):
                netlink.write(wanted)
            self._remove(netlink, others)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            self._remove(netlink, others)  # the kernel overlooks `not` when it compares
            netlink.write(wanted)


def _rule(header: tuple[int, ...], said: Mapping[int, bytes]) -> Rule:
    _, dst_len, src_len, tos, table, action, flags = header
    suppressed = u32(said.get(SUPPRESS_PREFIXLEN, b"\xff" * 4)) != NO_SUPPRESSION
    if action != TO_TABLE or tos or flags & INVERT or suppressed or not SAYABLE.issuperset(said):
        return OTHER
    return Rule(
        table=u32(said[TABLE]) if TABLE in said else table,
        mark=u32(said.get(FWMARK, b"")),
        mark_mask=u32(said.get(FWMASK, b"")),
        source=network(said[SRC], src_len) if SRC in said else None,
        destination=network(said[DST], dst_len) if DST in said else None,
        in_ifname=text(said.get(IIFNAME, b"")),
    )


def _message(key: RuleKey, row: Rule) -> bytes:
    fields = {
        "family": FAMILIES[key.family],
        "dst_len": row.destination.prefixlen if row.destination else 0,
        "src_len": row.source.prefixlen if row.source else 0,
        "table": row.table if row.table < 256 else 0,
        "action": TO_TABLE,
    }
    said: list[tuple[str, object]] = [
        ("FRA_PRIORITY", key.priority),
        ("FRA_TABLE", row.table),
        ("FRA_PROTOCOL", PROTOCOL),
    ]
    said += _network("FRA_SRC", row.source) + _network("FRA_DST", row.destination)
    if row.mark or row.mark_mask:
        said += [("FRA_FWMARK", row.mark), ("FRA_FWMASK", row.mark_mask)]
    if row.in_ifname:
        said.append(("FRA_IIFNAME", row.in_ifname))
    return encoded(fibmsg(), fields, said)


def _network(name: str, value: IPv4Network | IPv6Network | None) -> list[tuple[str, object]]:
    return [(name, str(value.network_address))] if value is not None and value.prefixlen else []
