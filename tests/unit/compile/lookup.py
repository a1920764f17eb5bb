"""The kernel's lookups over desired rows, as the datapath does them: what tests ask for a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from reconciler.compile.host import Desired
from reconciler.engine.rows import Columns
from reconciler.model.datapath import PolicyFlag, Verdict

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Judged:
    verdict: Verdict
    flags: PolicyFlag
    cookie: int

    @property
    def passes(self) -> bool:
        return self.verdict is Verdict.ALLOW or bool(self.flags & PolicyFlag.AUDIT)


def policy_rows(desired: Desired) -> Columns:
    found = desired.tables["policy"]
    assert isinstance(found, Columns)
    return found


def identity_of(desired: Desired, address: IpAddress) -> int:
    """By the longest prefix of the ipcache."""
    cache = desired.tables["ipcache"]
    assert isinstance(cache, Columns)
    value = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    best, identity = -1, 0
    for (high, low, bits, _), (number, _) in zip(cache.keys.tolist(), cache.values.tolist(), strict=True):
        if bits > best and ((high << 64 | low) ^ value) >> (128 - bits) == 0:
            best, identity = bits, number
    return identity


def judge(
    desired: Desired, subject: IpAddress, peer: IpAddress, protocol: int, port: int, *, egress: bool = False
) -> Judged:
    """The stronger of the longest match of the peer itself and that of any peer."""
    rows = policy_rows(desired)
    who, whom = identity_of(desired, subject), identity_of(desired, peer)
    mine = (rows.keys["subject"] == who) & (rows.keys["egress"] == int(egress))
    assert mine.any(), f"{subject} has no rows"
    found = [_longest(rows, mine & (rows.keys["peer"] == one), protocol, port) for one in (whom, 0)]
    return max((row for row in found if row), key=lambda row: (row.verdict, PolicyFlag.REDIRECT in row.flags))


def _longest(rows: Columns, chosen: np.ndarray, protocol: int, port: int) -> Judged | None:
    best: tuple[int, Judged] | None = None
    for index in np.flatnonzero(chosen):
        key, value = rows.keys[index], rows.values[index]
        bits = int(key["port_bits"])
        exact = int(key["protocol"]) == protocol and (int(key["port"]) ^ port) >> (16 - bits) == 0
        length = 8 + bits if exact else 0
        if (exact or key["protocol"] == 0) and (best is None or length > best[0]):
            judged = Judged(Verdict(int(value["verdict"])), PolicyFlag(int(value["flags"])), int(value["cookie"]))
            best = (length, judged)
    return best[1] if best else None
