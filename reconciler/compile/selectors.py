"""Selectors to sets of identities, by bitmaps over an inverted label index.

A set of identities is one Python integer: bit p stands for the identity at position p. Positions are handed out once
and never reused, so that two equal bitmaps of different times mean the same identities; when too many of them are
dead, everything is renumbered and `epoch` rises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from reconciler.model.labels import Label, LabelSet
from reconciler.model.selector import ANY_SOURCE, Operator, Requirement, Selector

# Labels of this source mark workloads that lie inside an ipBlock. No manifest can name them: selectors without a
# source must not see them, because the label of a CIDR means addresses outside the cluster.
IPBLOCK_SOURCE = "ipblock"
_SPARSE = 24  # up to here, single bits are faster than a pass over the whole bitmap (measured at 10,000 identities)
_MIN_DEAD = 1024


def bitmap(positions: Iterable[int]) -> int:
    listed = list(positions)
    if len(listed) <= _SPARSE:
        return sum(1 << position for position in set(listed))
    octets = bytearray(max(listed) // 8 + 1)
    for position in listed:
        octets[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(octets, "little")


def positions(bits: int) -> NDArray[np.intp]:
    """Ascending."""
    if bits.bit_count() <= _SPARSE:
        found = []
        while bits:
            found.append(bits.bit_length() - 1)
            bits ^= 1 << found[-1]
        return np.array(found[::-1], np.intp)
    octets = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(octets, bitorder="little"))


class LabelIndex:
    """Identities by label. `everyone` is the bitmap of all.

    `version` rises when selectors may find others, `epoch` when bitmaps lose their meaning.
    """

    def __init__(self, labels: Mapping[int, LabelSet] | None = None) -> None:
        self.epoch = 0
        self.version = 0
        self._reset()
        if labels:
            self.update(labels)

    def _reset(self) -> None:
        self.everyone = 0
        self._labels: dict[int, LabelSet] = {}
        self._position: dict[int, int] = {}
        self._numbers: list[int] = []
        self._table = np.empty(0, np.uint32)
        self._postings: dict[tuple[str, str], dict[str, list[int]]] = {}
        self._sources: dict[str, list[str]] = {}
        self._memo: dict[Requirement, int] = {}

    def update(self, labels: Mapping[int, LabelSet]) -> None:
        """Hold exactly `labels` (identity -> labels). O(identities), cheap where they are the same objects."""
        gone = [number for number, old in self._labels.items() if (now := labels.get(number)) is not old and now != old]
        for number in gone:
            self._remove(number)
        if len(self._numbers) > 2 * len(self._position) + _MIN_DEAD:
            self.epoch += 1
            self._reset()
        new = [number for number in labels if number not in self._labels]
        for number in new:
            self._add(number, labels[number])
        if gone or new:
            self.version += 1
            self._memo.clear()
            self.everyone = bitmap(self._position.values())
            self._table = np.array(self._numbers, np.uint32)

    def _add(self, number: int, labels: LabelSet) -> None:
        position = len(self._numbers)
        self._numbers.append(number)
        self._position[number] = position
        self._labels[number] = labels
        for label in labels:
            place = (label.source, label.key)
            if place not in self._postings:
                self._postings[place] = {}
                self._sources.setdefault(label.key, []).append(label.source)
            self._postings[place].setdefault(label.value, []).append(position)

    def _remove(self, number: int) -> None:
        position = self._position.pop(number)
        for label in self._labels.pop(number):
            self._postings[label.source, label.key][label.value].remove(position)

    def select(self, selector: Selector) -> int:
        bits = self.everyone
        for requirement in selector.requirements:
            bits &= self._satisfying(requirement)
            if not bits:
                break
        return bits

    def carrying(self, label: Label) -> int:
        """Identities with this very label, source included."""
        return bitmap(self._postings.get((label.source, label.key), {}).get(label.value, ()))

    def bit(self, number: int) -> int:
        """0 if the identity is not there."""
        position = self._position.get(number)
        return 0 if position is None else 1 << position

    def numbers(self, bits: int) -> NDArray[np.uint32]:
        """The identities of a bitmap, in the order of their positions."""
        return self._table[positions(bits)]

    def _satisfying(self, requirement: Requirement) -> int:
        known = self._memo.get(requirement)
        if known is None:
            known = self._memo[requirement] = self._evaluate(requirement)
        return known

    def _evaluate(self, requirement: Requirement) -> int:
        operator = requirement.operator
        found: list[int] = []
        for source in self._sources_of(requirement):
            values = self._postings[source, requirement.key]
            named = requirement.values if operator in (Operator.IN, Operator.NOT_IN) else values
            for value in named:
                found += values.get(value, ())
        bits = bitmap(found)
        return bits if operator in (Operator.IN, Operator.EXISTS) else self.everyone & ~bits

    def _sources_of(self, requirement: Requirement) -> list[str]:
        sources = self._sources.get(requirement.key, [])
        if requirement.source == ANY_SOURCE:
            return [source for source in sources if source != IPBLOCK_SOURCE]
        return [source for source in sources if source == requirement.source]
