"""The outer map `policy`: (generation, subject) -> the map with the subject's rows (bpf/lib/policy.h).

Each write of a map of maps ends with an RCU grace period (2 to 30 ms), long after what it wrote is visible. Nobody here
needs that wait, so the call is made in a thread and counts as done as soon as its last row can be read back.
"""

from __future__ import annotations

import os
import resource
from _thread import start_new_thread
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import Event

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf import maps, syscalls
from reconciler.bpf.maps import Records
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import Map

Numbers = NDArray[np.uint32]

_POLL_S = 0.0001
_SPARE_DESCRIPTORS = 512  # for everything else that the process has open, besides
_SHARES = 4  # of which one is for the links that it holds (tcx.py)


def keys_of(outer: Map, generation: int, subjects: Numbers) -> Records:
    keys = np.zeros(len(subjects), outer.key_dtype)
    keys["generation"], keys["subject"] = generation, subjects
    return keys


def entered(outer: Map, generation: int) -> tuple[Numbers, Numbers]:
    """Subjects of a generation, ascending, and the ids of their maps."""
    keys, ids = outer.read()
    mine = np.flatnonzero(keys["generation"] == generation)
    mine = mine[np.argsort(keys["subject"][mine])]
    return keys["subject"][mine], ids[mine]


def entered_among(outer: Map, generation: int, subjects: Numbers) -> tuple[Numbers, Numbers]:
    """The same of these subjects only; 2 us each."""
    found, ids = outer.lookup(keys_of(outer, generation, subjects))
    return subjects[found], ids[found]


def open_rows(numbers: Iterable[int]) -> Iterator[int]:
    """A descriptor of each subject's rows, by the ids of their maps."""
    return syscalls.each_by_id(syscalls.MAP_BY_ID, numbers, "opening policy rows")


def enter(outer: Map, generation: int, subjects: Numbers, open_: Callable[[slice], Iterable[int]]) -> None:
    """Enter subjects under a generation; `open_` opens the maps of a part of them and hands the descriptors over."""
    enter_at(outer, keys_of(outer, generation, subjects), open_)


def enter_at(outer: Map, every: Records, open_: Callable[[slice], Iterable[int]]) -> None:
    """Enter maps under these keys; `open_` as for `enter`."""
    at_once = _descriptors_for(len(every))
    for start in range(0, len(every), at_once):
        part = slice(start, start + at_once)
        keys = every[part]
        descriptors: list[int] = []
        try:
            descriptors.extend(open_(part))
            last = maps.info(descriptors[-1]).id
        except BaseException:
            _close(descriptors)
            raise
        _visibly(
            partial(outer.update, keys, np.array(descriptors, np.uint32)),
            partial(_holds, outer, keys[-1:], last),
            partial(_close, descriptors),
        )


def remove(outer: Map, keys: Records) -> None:
    """Idempotent."""
    keys = keys[outer.lookup(keys)[0]]  # the last one shows when all are gone, so it has to be there
    if len(keys):
        _visibly(partial(outer.delete, keys), partial(_holds, outer, keys[-1:], 0), lambda: None)


def _holds(outer: Map, key: Records, number: int) -> bool:
    """Whether the map with this id is entered there; 0 is none."""
    return int(outer.lookup(key)[1][0]) == number


def _visibly(write: Callable[[], None], is_done: Callable[[], bool], after: Callable[[], None]) -> None:
    """Start a write in a thread and return when `is_done`; `after` runs when the write has returned.

    Raises what the write raised before it was done.
    """
    failures: list[BaseException] = []
    returned = Event()

    def work() -> None:
        try:
            write()
        except BaseException as failure:
            failures.append(failure)
        finally:
            returned.set()
            after()

    start_new_thread(work, ())  # `Thread.start` would wait until it runs
    while not returned.is_set() and not is_done():
        returned.wait(_POLL_S)
    if failures:
        raise failures[0]


def _descriptors_for(count: int) -> int:
    """How many descriptors may be open at once; the soft limit is raised as far as that takes.

    Raises KernelError if the hard limit leaves none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (count + _SPARE_DESCRIPTORS) * _SHARES // (_SHARES - 1) + 1
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = count if soft == resource.RLIM_INFINITY else soft - soft // _SHARES - _SPARE_DESCRIPTORS
    if count and room <= 0:
        raise KernelError(f"{soft} open files are too few", remedy=f"allow {wanted}: LimitNOFILE of the systemd unit")
    return max(1, min(count, room))


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
