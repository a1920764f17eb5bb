"""Identities: one number for each label set, the same on every host.

A number is taken by writing two keys at once, both of which must be absent: the label set's and the number's. Where the
search for a free number begins is a hash of the label set, so two hosts rarely meet on a number, a store that was lost
hands out mostly the same numbers again, and a number that was given back is not the next one to be handed out.

    .../identities/<cluster id>/label-sets/<sha256 of the labels>    the number
    .../identities/<cluster id>/numbers/<number>                     the labels, and whether nobody uses them
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType

from reconciler.errors import StoreError
from reconciler.model.identity import FIRST_CLUSTER, LAST_CLUSTER
from reconciler.model.labels import Label, LabelSet, label_set
from reconciler.store.protocol import ABSENT, Item, Store, root

CLUSTER_SHIFT = 16  # bits 16 to 23 are the cluster's id (cilium/cilium pkg/identity/numericidentity.go)
POOL = LAST_CLUSTER - FIRST_CLUSTER + 1
GRACE_S = 900.0
ATTEMPTS = 64  # each lost one means that somebody else has allocated meanwhile


def identities_prefix(cluster: str) -> str:
    return f"{root(cluster)}identities/"


@dataclass(frozen=True, slots=True)
class _Record:
    labels: LabelSet
    unused: bool
    revision: int


class Identities:
    """Allocation of a cluster's identities in a store."""

    def __init__(self, store: Store, cluster_id: int, cluster: str = "default", grace_s: float = GRACE_S) -> None:
        self._store = store
        self._high = cluster_id << CLUSTER_SHIFT
        self._grace_s = grace_s
        self._label_sets = f"{identities_prefix(cluster)}{cluster_id}/label-sets/"
        self._numbers = f"{identities_prefix(cluster)}{cluster_id}/numbers/"
        self._parsed: dict[int, _Record] = {}  # by number
        self._marked: dict[int, tuple[int, float]] = {}  # number -> revision of its mark, and when we saw it

    def all(self) -> dict[int, LabelSet]:
        """identity -> labels, unused ones too until they are collected."""
        return {number: record.labels for number, record in self._records().items()}

    def labels_of(self, numbers: Iterable[int]) -> dict[int, LabelSet]:
        """identity -> labels, of those that are there. A read for each that was not read before."""
        found = {}
        for number in numbers:
            if item := self._store.get(f"{self._numbers}{number}"):
                known = self._parsed.get(number)
                if known is None or known.revision != item.revision:
                    known = self._parsed[number] = _read(item)
                found[number] = known.labels
        return found

    def allocate(self, label_sets: Iterable[LabelSet]) -> dict[LabelSet, int]:
        """label set -> identity; those that have none get one, those that were marked as unused are in use again.

        Writes nothing where nothing is new, and reads again what it wrote. The keys are the sets that are remembered
        here, the caller's own where they are new, so that each is in memory once. Raises StoreError when all numbers
        are taken.
        """
        wanted = set(label_sets)
        spelled = {labels: labels for labels in wanted}
        for _ in range(ATTEMPTS):
            records = self._records(spelled)
            numbers = {record.labels: number for number, record in records.items()}
            again = {
                number: records[number]
                for labels in wanted
                if (number := numbers.get(labels)) is not None and records[number].unused
            }
            new = self._choose(wanted - numbers.keys(), records)
            if not again and not new:
                return {labels: number for labels, number in numbers.items() if labels in wanted}
            self._write(again, new)
        raise StoreError(f"identities: {ATTEMPTS} attempts to allocate met other writers")

    def collect(self, in_use: Collection[int], now_s: float) -> tuple[int, ...]:
        """Mark the numbers that are not `in_use` in the whole cluster, release those marked for the grace time.

        `now_s` is the caller's own clock: how long a mark has been there counts from when this object saw it, as
        clocks of hosts differ. The released numbers; one that somebody allocates meanwhile stays.
        """
        released = []
        marked: dict[int, tuple[int, float]] = {}
        for number, record in self._records().items():
            if number in in_use or not record.unused:
                if (number in in_use) is record.unused:
                    self._mark(number, record, not record.unused)
                continue
            revision, since_s = self._marked.get(number, (0, 0.0))
            if revision != record.revision:
                marked[number] = (record.revision, now_s)
            elif now_s - since_s < self._grace_s:
                marked[number] = (revision, since_s)
            elif self._release(number, record):
                released.append(number)
        self._marked = marked
        return tuple(released)

    def _records(self, spelled: Mapping[LabelSet, LabelSet] = MappingProxyType({})) -> Mapping[int, _Record]:
        """number -> record; an item that was read before is not parsed again. `spelled`: sets that are in memory."""
        parsed: dict[int, _Record] = {}
        for item in self._store.range(self._numbers).items:
            number = int(item.key.removeprefix(self._numbers))
            known = self._parsed.get(number)
            parsed[number] = known if known and known.revision == item.revision else _read(item, spelled)
        self._parsed = parsed
        return parsed

    def _choose(self, label_sets: Iterable[LabelSet], taken: Mapping[int, _Record]) -> dict[LabelSet, int]:
        chosen: dict[LabelSet, int] = {}
        busy = set(taken)
        for digest, labels in sorted((_digest(labels), labels) for labels in label_sets):
            if len(busy) >= POOL:
                raise StoreError(
                    f"all {POOL} identities are taken",
                    remedy="use fewer different label sets: labels that no policy selects need not be on workloads",
                )
            offset = int(digest[:16], 16) % POOL
            while (number := self._high + FIRST_CLUSTER + offset) in busy:
                offset = (offset + 1) % POOL
            busy.add(number)
            chosen[labels] = number
        return chosen

    def _write(self, again: Mapping[int, _Record], new: Mapping[LabelSet, int]) -> bool:
        """In as many transactions as the store wants; each leaves whole identities."""
        for number, record in again.items():
            if not self._mark(number, record, False):
                return False
        listed = list(new.items())
        size = max(1, self._store.max_writes // 2)
        for start in range(0, len(listed), size):
            writes: dict[str, bytes | None] = {}
            for labels, number in listed[start : start + size]:
                writes[self._label_sets + _digest(labels)] = str(number).encode()
                writes[f"{self._numbers}{number}"] = _written(labels, False)
            if not self._store.transact(dict.fromkeys(writes, ABSENT), writes):
                return False
        return True

    def _mark(self, number: int, record: _Record, unused: bool) -> bool:
        value = _written(record.labels, unused)
        return self._store.compare_and_swap(f"{self._numbers}{number}", value, record.revision)

    def _release(self, number: int, record: _Record) -> bool:
        key = f"{self._numbers}{number}"
        return self._store.transact(
            {key: record.revision}, {key: None, self._label_sets + _digest(record.labels): None}
        )


def _triples(labels: LabelSet) -> list[list[str]]:
    """Not the text form of labels: no label may be able to spell two."""
    return [[label.source, label.key, label.value] for label in sorted(labels)]


@lru_cache(maxsize=1 << 8)  # what many label sets have; to remember one that a single set has takes more than it does
def _label(source: str, key: str, value: str) -> Label:
    return Label(sys.intern(source), sys.intern(key), value)


def _digest(labels: LabelSet) -> str:
    return sha256(json.dumps(_triples(labels)).encode()).hexdigest()


def _written(labels: LabelSet, unused: bool) -> bytes:
    return json.dumps({"labels": _triples(labels), "unused": unused}).encode()


def _read(item: Item, spelled: Mapping[LabelSet, LabelSet] = MappingProxyType({})) -> _Record:
    try:
        value = json.loads(item.value)
        labels = label_set(_label(*triple) for triple in value["labels"])
        return _Record(spelled.get(labels, labels), bool(value["unused"]), item.revision)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{item.key} in the store is not an identity: {error}") from error
