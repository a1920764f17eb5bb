"""What the endpoint programs look up (bpf/lib/ipcache.h, bpf/lib/policy.h), over compiled rows instead of maps."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from reconciler.engine.rows import Columns
from reconciler.model.datapath import IpcacheFlag, PolicyFlag, Verdict
from reconciler.verdict.case import IpAddress, Side, Word

_MAPPED = 0xFFFF << 32  # ::ffff:0:0, RFC 4291 section 2.5.5.2
_BITS = 128
_PORT_BITS = 16


class Peer(NamedTuple):
    """As `struct peer`: identity 0 is an address that nobody knows, flags are IpcacheFlag."""

    identity: int
    flags: int


class Ipcache:
    """Rows by the length of their prefix, the longest first."""

    def __init__(self, rows: Columns) -> None:
        by_length: defaultdict[int, dict[int, Peer]] = defaultdict(dict)
        for (high, low, bits, _), value in zip(rows.keys.tolist(), rows.values.tolist(), strict=True):
            by_length[bits][(high << 64 | low) >> _BITS - bits] = Peer(*value)
        self._by_length = sorted(by_length.items(), reverse=True)

    def find(self, address: IpAddress) -> Peer:
        """As find_peer()."""
        value = int(address) | (_MAPPED if address.version == 4 else 0)
        for bits, rows in self._by_length:
            if found := rows.get(value >> _BITS - bits):
                return found
        return Peer(0, 0)


class _Row(NamedTuple):
    strength: int  # as strength()
    verdict: int
    flags: int
    cookie: int


class PolicyRows:
    """Rows of every subject. A question costs about 2 us."""

    def __init__(self, rows: Columns) -> None:
        self._subjects: set[int] = set()
        self._rows: defaultdict[tuple[int, int, int], dict[tuple[int, int, int], _Row]] = defaultdict(dict)
        for key, (verdict, flags, _, cookie) in zip(rows.keys.tolist(), rows.values.tolist(), strict=True):
            subject, peer, egress, protocol, bits, _, port, _ = key
            self._subjects.add(subject)
            redirect = verdict == Verdict.ALLOW and bool(flags & PolicyFlag.REDIRECT)
            row = _Row(verdict << 1 | redirect, verdict, flags, cookie)
            self._rows[subject, peer, egress][protocol, bits, port >> _PORT_BITS - bits] = row

    @property
    def subjects(self) -> frozenset[int]:
        return frozenset(self._subjects)

    def judge(self, subject: Peer, peer: int, *, egress: bool, protocol: int, port: int) -> Side:
        """As judge_side() and add_side(); what has no rows may do nothing."""
        own = self._longest((subject.identity, peer, egress), protocol, port)
        anyone = self._longest((subject.identity, 0, egress), protocol, port)
        if own is None or (anyone is not None and anyone.strength > own.strength):
            own = anyone
        if own is None:
            return Side(Word.DENY)
        if own.verdict != Verdict.ALLOW:
            audited = bool(own.flags & PolicyFlag.AUDIT or subject.flags & IpcacheFlag.AUDIT)
            return Side(Word.ALLOW if audited else Word.DENY, own.cookie, audited)
        return Side(Word.REDIRECT if own.flags & PolicyFlag.REDIRECT else Word.ALLOW, own.cookie)

    def _longest(self, place: tuple[int, int, int], protocol: int, port: int) -> _Row | None:
        rows = self._rows.get(place)
        if rows is None:
            return None
        for bits in range(_PORT_BITS, -1, -1):
            if found := rows.get((protocol, bits, port >> _PORT_BITS - bits)):
                return found
        return rows.get((0, 0, 0))
