"""The policy rows of one subject as columns: peers that are treated alike share their port rows.

Any peer is one row (peer 0), never a row for each; the kernel takes the stronger of the exact peer's longest match and
of peer 0's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.entries import Entry
from reconciler.compile.precedence import Claim, PortRow, combine
from reconciler.compile.selectors import LabelIndex
from reconciler.compile.stance import Stance
from reconciler.model.datapath import POLICY_KEY, POLICY_VALUE, PolicyFlag, Verdict
from reconciler.model.identity import Reserved

ANY_PEER = np.array([Reserved.UNKNOWN], np.uint32)


@dataclass(frozen=True, slots=True)
class Block:
    """Peers times port rows."""

    egress: bool
    audit: bool
    peers: NDArray[np.uint32]
    rows: Sequence[PortRow]


@dataclass(frozen=True, slots=True)
class SubjectRows:
    """POLICY_KEY records whose subject is still 0, and POLICY_VALUE records."""

    keys: NDArray[np.void]
    values: NDArray[np.void]


def blocks(stance: Stance, index: LabelIndex, *, egress: bool) -> list[Block]:
    """The first block is that of any peer."""
    anyone = [entry.claim for entry in stance.entries if entry.peers is None]
    found = [Block(egress, stance.audit, ANY_PEER, combine([*anyone, stance.default]))]
    for bits, claims in alike(stance.entries):
        found.append(Block(egress, stance.audit, index.numbers(bits), combine(claims)))
    return found


def alike(entries: Iterable[Entry]) -> list[tuple[int, list[Claim]]]:
    """Disjoint bitmaps of the peers that the entries name, each with the claims on them in the order of `entries`."""
    by_peers: defaultdict[int, list[int]] = defaultdict(list)
    claims: list[Claim] = []
    for entry in entries:
        if entry.peers is not None:
            by_peers[entry.peers].append(len(claims))
            claims.append(entry.claim)
    classes: list[tuple[int, tuple[int, ...]]] = []
    seen = 0
    for bits, numbers in by_peers.items():
        fresh = bits & ~seen
        if fresh != bits:
            classes = _split(classes, bits, tuple(numbers))
        if fresh:
            classes.append((fresh, tuple(numbers)))
        seen |= bits
    return [(bits, [claims[number] for number in sorted(numbers)]) for bits, numbers in classes]


def _split(
    classes: Iterable[tuple[int, tuple[int, ...]]], bits: int, numbers: tuple[int, ...]
) -> list[tuple[int, tuple[int, ...]]]:
    """Each class in two where only some of its peers are among `bits`."""
    result = []
    for members, before in classes:
        inside = members & bits
        if inside:
            result.append((inside, before + numbers))
        if inside != members:
            result.append((members ^ inside, before))
    return result


def rows_by_cookie(found: Iterable[Block]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for block in found:
        for row in block.rows:
            counts[row.cookie] += len(block.peers)
    return counts


def columns(found: Sequence[Block]) -> SubjectRows:
    """O(rows) in numpy, O(port rows) in Python."""
    port_rows = [(block, row) for block in found for row in block.rows]
    key, value = _port_rows(port_rows)
    peers = np.concatenate([block.peers for block in found])
    peers_of = np.array([len(block.peers) for block in found])
    rows_of = np.array([len(block.rows) for block in found])
    block_of_peer = np.repeat(np.arange(len(found)), peers_of)
    times = rows_of[block_of_peer]  # port rows of each peer
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    first = np.cumsum(rows_of) - rows_of
    chosen = np.repeat(first[block_of_peer], times) + within
    keys = key[chosen]
    keys["peer"] = np.repeat(peers, times)
    return SubjectRows(keys, value[chosen])


def _port_rows(rows: Sequence[tuple[Block, PortRow]]) -> tuple[NDArray[np.void], NDArray[np.void]]:
    key = np.zeros(len(rows), POLICY_KEY)
    value = np.zeros(len(rows), POLICY_VALUE)
    key["egress"] = [block.egress for block, _ in rows]
    key["protocol"] = [row.prefix.protocol for _, row in rows]
    key["port_bits"] = [row.prefix.bits for _, row in rows]
    key["port"] = [row.prefix.port for _, row in rows]
    value["verdict"] = [row.verdict for _, row in rows]
    value["flags"] = [_flags(block, row) for block, row in rows]
    value["cookie"] = [row.cookie for _, row in rows]
    return key, value


def _flags(block: Block, row: PortRow) -> PolicyFlag:
    if block.audit:
        return PolicyFlag.AUDIT if row.verdict is not Verdict.ALLOW else PolicyFlag(0)
    return PolicyFlag.REDIRECT if row.redirect else PolicyFlag(0)
