"""The switch between two states of policy: one word in the map `state`, which each packet reads once (bpf/lib/state.h).

What tables write between `begin` and `flip` is staged for the next epoch and counts for no packet. After the flip the
old rows are taken away, one RCU grace period (some milliseconds) later and in the background: until then a packet may
be on its way that read the word before it changed. The pin `staging` says that there may be rows staged or not yet
taken away, so that whoever comes next, in whatever process, cleans up first.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

import numpy as np

from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.grace import hurried, wait_for_programs
from reconciler.bpf.programs import Instruction
from reconciler.bpf.syscalls import held
from reconciler.kernel.bpf_maps import Map, PinnedMaps

log = logging.getLogger(__name__)

_STATE, _STAGING = "state", "staging"
_FLOWS = ("conntrack4", "conntrack6", "denials4", "denials6")
_SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE, which programs of type SYSCALL must be
_WORD = 1 << 32
_ZERO = np.zeros(1, np.uint32)


class Version(NamedTuple):
    """`epoch` counts flips; `generation` is the epoch that last brought other policy rows. 0, 0: never flipped."""

    epoch: int
    generation: int


class Staging(Protocol):
    """A table whose rows wait for the flip."""

    def discard(self, version: Version) -> None:
        """Take away what was staged for a later epoch than `version`'s, and what earlier flips left behind."""


class Generation:
    """Implements `engine.table.Flip`. Tables join it; those that stage say so by `stage`."""

    def __init__(self, pinned: PinnedMaps) -> None:
        self._maps = pinned
        self._members: list[Staging] = []
        self._after: list[Callable[[], None]] = []
        self._policy_staged = False
        self._staged = False
        self._cleaner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clean after flip")
        self._cleaning: Future[None] | None = None
        self._writer: _Writer | None = None

    def join(self, member: Staging) -> None:
        self._members.append(member)

    @property
    def current(self) -> Version:
        """(0, 0) before the programs were loaded. 3 us."""
        state = self._maps.find(_STATE)
        return _version(state) if state else Version(0, 0)

    @property
    def next_epoch(self) -> int:
        """What staged rows count from."""
        return next_epoch(self.current.epoch)

    def begin(self) -> None:
        """Make sure that nothing is staged. A word that was never written forgets every flow that was judged before.

        Cheap, unless an earlier transaction did not get to its end: then all rows are looked at.
        """
        try:
            self.finish()
        except Exception as failure:
            log.warning("cleaning after a flip failed and is done again reason=%r", failure)
        self._after.clear()
        self._policy_staged = self._staged = False
        if not self._maps.find(_STATE):  # no programs yet, or they could not be loaded: nothing can be staged
            return
        with held(self._lock()):
            version = _version(self._maps.open(_STATE))
            if version == (0, 0):
                self._forget_flows()
            if self._is_dirty():
                for member in self._members:
                    member.discard(version)
                self._mark(dirty=False)

    def stage(self, after: Callable[[], None], *, policy: bool = False) -> None:
        """Before the first row is staged. `after` runs when no packet sees the old rows any more.

        `policy`: the policy rows of the next epoch are being entered, so the flip makes it the generation too.
        """
        if not self._staged:
            self._mark(dirty=True)
        self._staged = True
        self._policy_staged |= policy
        self._after.append(after)

    def flip(self) -> None:
        """From here on packets see what was staged. Nothing staged: nothing happens."""
        if not self._staged:
            return
        state = self._maps.open(_STATE)
        version = _version(state)
        epoch = next_epoch(version.epoch)
        generation = epoch if self._policy_staged else version.generation
        lock = self._lock()
        try:
            self._write(state, Version(epoch, generation), _events(state))
        except BaseException:
            os.close(lock)
            raise
        after, self._after = self._after, []
        self._policy_staged = self._staged = False
        self._cleaning = self._cleaner.submit(self._clean, lock, after)

    def settle(self) -> None:
        """Wait until no packet is on its way that read the word before the last flip. Milliseconds."""
        if self._cleaning:
            wait((self._cleaning,))

    @property
    def settled_epoch(self) -> int:
        """The epoch while rows may be put right in place: the word was written, nothing is staged nor being cleaned.

        0 while they may not.
        """
        epoch = self.current.epoch
        return epoch if epoch and not self._is_dirty() else 0

    def advance(self) -> None:
        """Every flow is judged again from its next packet on: after rows were put right in place, while settled."""
        state = self._maps.open(_STATE)
        row = state.lookup(_ZERO)[1][0]
        version = _version_of(row)
        self._write(state, Version(next_epoch(version.epoch), version.generation), int(row["events"]))

    def finish(self) -> None:
        """Wait until the last flip's old rows are gone. Raises what went wrong with that."""
        cleaning, self._cleaning = self._cleaning, None
        if cleaning:
            cleaning.result()

    def set_events(self, mask: int) -> None:
        """Which events the programs send: `enum event_mask`."""
        state = self._maps.open(_STATE)
        self._write(state, _version(state), mask)

    def _clean(self, lock: int, after: list[Callable[[], None]]) -> None:
        """In a thread of its own. Holds the lock, which keeps other processes from staging meanwhile.

        What it raises `finish` tells; the mark stays then, so that the next `begin` cleans.
        """
        with held(lock):
            with hurried():
                wait_for_programs()
            for clean in after:
                clean()
            self._mark(dirty=False)

    def _write(self, state: Map, version: Version, events: int) -> None:
        if self._writer is None or self._writer.state is not state:
            self._writer = _Writer(state, _program(state))
        self._writer.write(version, events)

    def _forget_flows(self) -> None:
        """Verdicts of an earlier life: the epochs of this one would meet them again."""
        for name in _FLOWS:
            if flows := self._maps.find(name):
                flows.delete(flows.read()[0])

    def _is_dirty(self) -> bool:
        """Unknown, for want of the pin, is dirty."""
        staging = self._maps.find(_STAGING)
        return not staging or bool(staging.lookup(_ZERO)[1].view(np.uint32)[0])

    def _mark(self, *, dirty: bool) -> None:
        staging = self._maps.find(_STAGING)
        if not staging:
            with held(maps.create(maps.ARRAY, 4, 4, 1, name=_STAGING)) as made:
                syscalls.pin(made, self._maps.path(_STAGING))
            staging = self._maps.open(_STAGING)
        staging.update(_ZERO, np.array([dirty], np.uint32).view(staging.value_dtype))

    def _lock(self) -> int:
        """A descriptor that holds the lock on the folder of the pins; waits while another process cleans."""
        folder = os.open(self._maps.root / "maps", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
        except BaseException:
            os.close(folder)
            raise
        return folder


class _Writer:
    """Writes the state by a program: a map update copies bytes, a program stores the word at once. Owns the program."""

    def __init__(self, state: Map, program: int) -> None:
        self.state = state
        self._program = program

    def __del__(self) -> None:
        os.close(self._program)

    def write(self, version: Version, events: int) -> None:
        programs.run_syscall(self._program, struct.pack("=IIII", version.epoch, version.generation, events, 0))


def _program(state: Map) -> int:
    code: list[Instruction] = [
        programs.load(2, 1, 0, 8),
        programs.load(4, 1, 8, 4),
        *programs.load_map_value(3, state.descriptor),
        programs.store(3, 2, _offset(state, "version"), 8),
        programs.store(3, 4, _offset(state, "events"), 4),
        programs.move(0, 0),
        programs.leave(),
    ]
    return programs.load_program(programs.SYSCALL, code, name="flip", flags=_SLEEPABLE)


def next_epoch(epoch: int) -> int:
    """The one after it; 0 is left out, as it means that the word was never written."""
    return (epoch + 1) % _WORD or 1


def _version(state: Map) -> Version:
    return _version_of(state.lookup(_ZERO)[1][0])


def _version_of(row: np.void) -> Version:
    return Version(*struct.unpack("=II", int(row["version"]).to_bytes(8, sys.byteorder)))


def _events(state: Map) -> int:
    return int(state.lookup(_ZERO)[1][0]["events"])


def _offset(state: Map, field: str) -> int:
    fields = state.value_dtype.fields
    assert fields is not None  # a struct, by its BTF
    return int(fields[field][1])
