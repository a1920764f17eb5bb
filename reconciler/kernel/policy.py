"""Policy as a table: logical rows over one LPM trie a subject, behind the outer map `policy` (bpf/lib/policy.h).

A write makes new tries for the subjects it changes, and enters these and everybody else's as they are under the next
epoch: until the flip no packet finds them. Unchanged subjects are neither read nor copied.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf import maps
from reconciler.bpf.maps import LPM_TRIE, NO_PREALLOC, Records
from reconciler.bpf.syscalls import held, refusal
from reconciler.engine.distinct import distinct, is_among
from reconciler.engine.match import match, words
from reconciler.engine.rows import Columns
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel import subjects
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation, Version
from reconciler.kernel.policy_rows import from_trie, to_trie
from reconciler.kernel.subjects import Numbers
from reconciler.model.datapath import POLICY_KEY, POLICY_VALUE

_OUTER = "policy"
_NONE = Columns(np.empty(0, POLICY_KEY), np.empty(0, POLICY_VALUE))


class PolicyTable:
    name = "policy"
    after: tuple[str, ...] = ("programs", "endpoints", "ipcache")
    key_dtype = POLICY_KEY
    value_dtype = POLICY_VALUE

    def __init__(self, pinned: PinnedMaps, generation: Generation) -> None:
        self._maps = pinned
        self._generation = generation
        self.flip: Flip | None = generation
        generation.join(self)

    def live(self, only: NDArray[np.void] | None = None) -> Columns:
        """Rows of the current generation. With `only`, the rows of subjects that it does not name are not read."""
        outer = self._maps.find(_OUTER)
        if not outer:
            return _NONE
        generation = self._generation.current.generation
        if only is None:
            return self._rows(*subjects.entered(outer, generation))
        rows = self._rows(*subjects.entered_among(outer, generation, distinct(only["subject"])))
        return rows.take(np.flatnonzero(_partners(rows.keys, only) >= 0))

    def write(self, upserts: Columns, deletes: NDArray[np.void]) -> None:
        """Between the flip's `begin` and `flip`, once. An unchanged subject costs 4 us, whatever its rows."""
        if not len(upserts) and not self._maps.find(_OUTER):
            return
        outer = self._maps.open(_OUTER)
        version, epoch = self._generation.current, self._generation.next_epoch
        keys, ids = outer.read()
        mine = keys["generation"] == version.generation
        known, ids = keys["subject"][mine], ids[mine]
        touched = np.concatenate([upserts.keys, deletes])
        is_changed = is_among(known, touched["subject"])
        old = self._rows(known[is_changed], ids[is_changed])
        kept = old.take(np.flatnonzero(_partners(old.keys, touched) < 0))
        owners, makers = self._tries(_joined(kept, upserts))
        unchanged = known[~is_changed], ids[~is_changed].tolist()
        self._generation.stage(partial(subjects.remove, outer, keys[mine]), policy=True)
        subjects.remove(outer, keys[keys["generation"] == epoch])  # entered by nobody of us
        subjects.enter(outer, epoch, np.concatenate([owners, unchanged[0]]), partial(_opened, makers, unchanged[1]))

    def mend(self, upserts: Columns, deletes: NDArray[np.void]) -> bool:
        """Put rows right that somebody else changed, in the tries that packets read now. False: that takes a write.

        It does where a trie is missing, has no room or is of another layout.
        """
        outer = self._maps.find(_OUTER)
        if not outer or not self._generation.settled_epoch:
            return False
        owners = distinct(np.concatenate([upserts.keys["subject"], deletes["subject"]]))
        known, ids = subjects.entered_among(outer, self._generation.current.generation, owners)
        if len(known) < len(owners):
            return False
        for subject, descriptor in zip(known.tolist(), subjects.open_rows(ids.tolist()), strict=True):
            with held(descriptor):
                gone = deletes[deletes["subject"] == subject]
                wanted = upserts.take(np.flatnonzero(upserts.keys["subject"] == subject))
                if not self._put(descriptor, wanted, Columns(gone, np.zeros(len(gone), POLICY_VALUE))):
                    return False
        self._generation.advance()
        return True

    def _put(self, trie: int, wanted: Columns, gone: Columns) -> bool:
        layout = self._maps.policy_layout
        about = maps.info(trie)
        if (about.kind, about.key_size, about.value_size) != (LPM_TRIE, layout[0].itemsize, layout[1].itemsize):
            return False
        return not maps.delete(trie, to_trie(gone, *layout)[0]) and not maps.update(trie, *to_trie(wanted, *layout))

    def keys_of(self, subject: int, raw: bytes) -> NDArray[np.void]:
        """Keys of rows for keys as they lie in the trie of a subject, one behind the other."""
        key_dtype, value_dtype = self._maps.policy_layout
        keys = np.frombuffer(raw, key_dtype)
        return from_trie(np.full(len(keys), subject, np.uint32), keys, np.zeros(len(keys), value_dtype)).keys

    def discard(self, version: Version) -> None:
        """Take away what is entered under another generation than the current one."""
        if outer := self._maps.find(_OUTER):
            keys, _ = outer.read()
            subjects.remove(outer, keys[keys["generation"] != version.generation])

    def _rows(self, known: Numbers, ids: Numbers) -> Columns:
        """Rows of subjects, by the ids of their tries; a trie that is gone by now has none."""
        key_dtype, value_dtype = self._maps.policy_layout
        keys, values, owners = [np.empty(0, key_dtype)], [np.empty(0, value_dtype)], [np.empty(0, np.uint32)]
        for subject, number in zip(known.tolist(), ids.tolist(), strict=True):
            try:
                (descriptor,) = subjects.open_rows([number])
            except KernelError as error:
                if error.errno == errno.ENOENT:
                    continue
                raise
            with held(descriptor):
                found = maps.read(descriptor, key_dtype, value_dtype, maps.info(descriptor).max_entries)
            keys.append(found[0])
            values.append(found[1])
            owners.append(np.full(len(found[0]), subject, np.uint32))
        return from_trie(np.concatenate(owners), np.concatenate(keys), np.concatenate(values))

    def _tries(self, rows: Columns) -> tuple[Numbers, list[Callable[[], int]]]:
        """The subjects of these rows, and for each what makes its trie."""
        rows = rows.take(np.argsort(rows.keys["subject"], kind="stable"))
        owners, starts, lengths = np.unique(rows.keys["subject"], return_index=True, return_counts=True)
        keys, values = to_trie(rows, *self._maps.policy_layout)
        makers: list[Callable[[], int]] = [
            partial(_trie, subject, keys[start : start + length], values[start : start + length])
            for subject, start, length in zip(owners.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        ]
        return owners, makers


def _opened(makers: list[Callable[[], int]], ids: list[int], part: slice) -> Iterator[int]:
    """Descriptors of a part of all tries: first those to be made, then those that are there."""
    yield from (make() for make in makers[part])
    first = len(makers)
    yield from subjects.open_rows(ids[max(0, part.start - first) : max(0, part.stop - first)])


def _trie(subject: int, keys: Records, values: Records) -> int:
    """A descriptor of a new trie with these rows, made like the outer map's template."""
    sizes = keys.dtype.itemsize, values.dtype.itemsize
    descriptor = maps.create(LPM_TRIE, *sizes, len(keys), flags=NO_PREALLOC, name=f"policy_{subject}")
    if error := maps.update(descriptor, keys, values):
        os.close(descriptor)
        raise refusal(error, f"writing {len(keys)} policy rows of identity {subject}")
    return descriptor


def _partners(keys: NDArray[np.void], others: NDArray[np.void]) -> NDArray[np.intp]:
    """For each key the index of the same one among the others, or -1; the others may repeat."""
    return match(words(keys), words(distinct(others)))


def _joined(kept: Columns, more: Columns) -> Columns:
    return Columns(np.concatenate([kept.keys, more.keys]), np.concatenate([kept.values, more.values]))
