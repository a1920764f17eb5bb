"""Tables of services: which backend each slot names, as inner maps of `service_tables` (bpf/lib/service.h).

A table is filled once and then frozen, so what was read of one stays true for as long as its id is there, and services
with the same backends share one. Its slots follow from the backends and their weights (model/maglev.py), which stand
behind them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf import btf, maps
from reconciler.bpf.maps import ARRAY, INNER_MAP, Records
from reconciler.bpf.syscalls import held, refusal
from reconciler.errors import KernelError
from reconciler.kernel import subjects
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.model.maglev import SIZES, Pool, Slots, size_of, tables

OUTER = "service_tables"
SLOTS_PER_WORD = 4
_WORD = np.dtype(np.uint64)
_AT_ONCE = 4096  # tables whose slots are worked out together: 8 MB with 10 backends each

Backends = tuple[tuple[int, int], ...]  # id and weight


class ServiceTables:
    """Remembers what is in each inner map that it has met."""

    def __init__(self, pinned: PinnedMaps) -> None:
        self._maps = pinned
        self._known: dict[int, Backends | None] = {}  # id of an inner map -> its backends, None: it is none of ours

    def live(self, services: Records | None = None) -> dict[int, Backends | None]:
        """service -> backends of its table; None where that is no table of ours. 30 us for each that is new."""
        outer = self._maps.find(OUTER)
        if not outer:
            return {}
        if services is None:
            services, ids = outer.read()
            self._known = {number: self._known[number] for number in ids.tolist() if number in self._known}
        else:
            found, ids = outer.lookup(services)
            services, ids = services[found], ids[found]
        return {service: self._read(number) for service, number in zip(services.tolist(), ids.tolist(), strict=True)}

    def enter(self, wanted: Mapping[int, Backends]) -> None:
        """service -> backends, at least one each. Tables that are there already are entered, others are made."""
        if not wanted:
            return
        outer = self._maps.open(OUTER)
        ids = {backends: number for number, backends in self._known.items() if backends}
        order = sorted(wanted, key=lambda service: wanted[service])
        makers = self._opened([wanted[service] for service in order], ids)
        keys = np.array(order, np.uint32)
        subjects.enter_at(outer, keys, lambda part: islice(makers, len(keys[part])))

    def remove(self, services: Records) -> None:
        """Idempotent."""
        if outer := self._maps.find(OUTER):
            subjects.remove(outer, services)

    def _opened(self, wanted: Sequence[Backends], ids: dict[Backends, int]) -> Iterator[int]:
        """A descriptor for each, of tables that are there if possible; equal ones stand side by side."""
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            fresh = [backends for backends in dict.fromkeys(part) if backends not in ids]
            slots = dict(zip(fresh, tables([pool(backends) for backends in fresh]), strict=True))
            for backends in part:
                descriptor = _opened_by_id(ids.get(backends, 0))
                if descriptor < 0:
                    made = slots.get(backends)
                    descriptor = _made(backends, tables([pool(backends)])[0] if made is None else made)
                    ids[backends] = maps.info(descriptor).id
                    self._known[ids[backends]] = backends
                yield descriptor

    def _read(self, number: int) -> Backends | None:
        if number not in self._known:
            descriptor = _opened_by_id(number)
            if descriptor < 0:
                return None
            with held(descriptor):
                self._known[number] = _backends_in(descriptor)
        return self._known[number]


def pool(backends: Backends) -> Pool:
    """What Maglev makes of them: a hash of 64 bits for each id, different for different ids."""
    return Pool(tuple(mixed(number) for number, _ in backends), tuple(weight for _, weight in backends))


def mixed(number: int) -> int:
    """A bijection of 64 bits. Source: Steele and others, "Fast splittable pseudorandom number generators", 2014."""
    mask = (1 << 64) - 1
    number = (number + 0x9E3779B97F4A7C15) & mask
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & mask
    number = (number ^ number >> 27) * 0x94D049BB133111EB & mask
    return number ^ number >> 31


def words_of(backends: Backends, slots: Slots) -> NDArray[np.uint64]:
    """The whole table, in the layout of bpf/lib/service.h."""
    first = -(-len(slots) // SLOTS_PER_WORD)
    places = np.zeros(first * SLOTS_PER_WORD, "<u2")
    places[: len(slots)] = slots
    tail = np.array(backends, "<u4").reshape(-1, 2)
    return np.concatenate([places.view("<u8"), tail.view("<u8")[:, 0]])


def _made(backends: Backends, slots: Slots) -> int:
    """A descriptor of a new table, filled and frozen."""
    words = words_of(backends, slots)
    descriptor = maps.create(ARRAY, 4, _WORD.itemsize, len(words), flags=INNER_MAP, name="service_table")
    try:
        if error := maps.update(descriptor, np.arange(len(words), dtype=np.uint32), words):
            raise refusal(error, f"writing a table of {len(backends)} backends")
        maps.freeze(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _backends_in(descriptor: int) -> Backends | None:
    about = maps.info(descriptor)
    if (about.kind, about.key_size, about.value_size) != (ARRAY, 4, _WORD.itemsize):
        return None
    _, words = maps.read(descriptor, btf.NUMBER, _WORD, about.max_entries)
    count = _count(len(words))
    tail = words[len(words) - count :].view("<u4").reshape(-1, 2).tolist()
    return tuple((number, weight) for number, weight in tail) or None


def _count(words: int) -> int:
    """How many backends a table of so many words has; 0 if none comes out even."""
    fitting = (words - -(-size // SLOTS_PER_WORD) for size in SIZES)
    return next((count for count, size in zip(fitting, SIZES, strict=True) if count > 0 and size_of(count) == size), 0)


def _opened_by_id(number: int) -> int:
    """-1 if there is no such map any more."""
    if not number:
        return -1
    try:
        (descriptor,) = subjects.open_rows([number])
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return -1
        raise
    return descriptor
