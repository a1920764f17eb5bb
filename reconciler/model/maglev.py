"""Maglev tables: which backend each slot of a service's table names.

Every backend has its own order of all slots, drawn from its identity alone. Turn by turn each takes the first slot of
its order that is free, so shares are even, and a backend that goes leaves nearly all slots of the others as they were.
Source: Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.uint16]
SLOTS_PER_BACKEND = 100  # shares differ by at most one hundredth, as in section 5.3
SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521)  # primes: every step walks all slots
MOST_BACKENDS = 32768  # half of the largest table: each has at least one slot
FEW = 16
_FREE = 0xFFFF


class Pool(NamedTuple):
    """The backends of a service: 64 bits of hash for each, all different, and their weights (1 or more)."""

    hashes: tuple[int, ...]
    weights: tuple[int, ...]


@lru_cache(maxsize=1 << 12)
def size_of(backends: int) -> int:
    """Slots of a table with so many backends (at most `MOST_BACKENDS`)."""
    wanted = backends * SLOTS_PER_BACKEND
    return next((size for size in SIZES if size >= wanted), SIZES[-1])


def tables(pools: Sequence[Pool]) -> list[Slots]:
    """For each pool a table of places in its `hashes`. Pools are filled side by side where they are alike in size."""
    found: list[Slots] = [np.zeros(0, np.uint16)] * len(pools)
    alike: defaultdict[int, list[int]] = defaultdict(list)
    for place, pool in enumerate(pools):
        alike[len(pool.hashes)].append(place)
    for backends, places in alike.items():
        if backends:
            some = [pools[place] for place in places]
            size = size_of(backends)
            filled = _side_by_side(some, size) if len(some) > FEW else [_one(pool, size) for pool in some]
            for place, table in zip(places, filled, strict=True):
                found[place] = table
    return found


def _one(pool: Pool, size: int) -> Slots:
    """As `_side_by_side`, for one: plain numbers are quicker until there are dozens."""
    order = sorted(range(len(pool.hashes)), key=pool.hashes.__getitem__)
    next_slot = [(pool.hashes[place] >> 32) % size for place in order]
    step = [(pool.hashes[place] & 0xFFFFFFFF) % (size - 1) + 1 for place in order]
    turns = _turns(np.array([[pool.weights[place] for place in order]], np.int64), size)[0].tolist()
    filled = [_FREE] * size
    for backend in turns:
        slot, stride = next_slot[backend], step[backend]
        while filled[slot] != _FREE:
            slot = (slot + stride) % size
        filled[slot] = order[backend]
        next_slot[backend] = slot
    return np.array(filled, np.uint16)


def _side_by_side(pools: Sequence[Pool], size: int) -> Slots:
    """[pool, slot] -> place of a backend. All pools have the same number of backends."""
    rows = np.arange(len(pools))
    # The result must not depend on the order in which backends are listed.
    hashes = np.array([pool.hashes for pool in pools], np.uint64)
    order = np.argsort(hashes, axis=1)
    hashes = np.take_along_axis(hashes, order, axis=1)
    weights = np.take_along_axis(np.array([pool.weights for pool in pools], np.int64), order, axis=1)
    next_slot = (hashes >> np.uint64(32)).astype(np.int64) % size
    step = (hashes & np.uint64(0xFFFFFFFF)).astype(np.int64) % (size - 1) + 1
    filled = np.full((len(pools), size), _FREE, np.uint16)
    turns = _turns(weights, size)
    for turn in range(size):
        backend = turns[:, turn]
        slot, stride = next_slot[rows, backend], step[rows, backend]
        searching = np.flatnonzero(filled[rows, slot] != _FREE)
        while searching.size:
            slot[searching] = (slot[searching] + stride[searching]) % size
            searching = searching[filled[searching, slot[searching]] != _FREE]
        filled[rows, slot] = order[rows, backend]
        next_slot[rows, backend] = slot
    return filled


def _turns(weights: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """[pool, turn] -> whose turn it is: each as often as its weight says, spread evenly."""
    pools, backends = weights.shape
    if (weights == weights[:, :1]).all():
        return np.broadcast_to(np.arange(size) % backends, (pools, size))
    credit = np.zeros_like(weights)
    total = weights.sum(axis=1)
    rows = np.arange(pools)
    turns = np.empty((pools, size), np.int64)
    for turn in range(size):
        credit += weights
        turns[:, turn] = credit.argmax(axis=1)
        credit[rows, turns[:, turn]] -= total
    return turns
