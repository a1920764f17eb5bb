"""Net cost of a program on one packet: `bpf/again.bpf.c` around it, less the same around an empty program.

Only in the namespace of the caller do device indexes mean anything: it must be in the right one.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.datapath.objects import BpfObject

EMPTY = 0  # slot of the empty program
_WORD = 8
_SK_BUFF = 192  # sizeof(struct __sk_buff)
_IFINDEX = 40  # offset of `ifindex` therein
_WORDS4, _WORDS6 = 8, 12


@dataclass(frozen=True, slots=True)
class Flows:
    """`count` flows made of one packet: the four bytes at `offset` count from `first` in steps of `step`."""

    offset: int
    first: int
    count: int
    step: int = 1


class Again:
    """One packet into one program. Make it by `Bench.again`."""

    def __init__(self, packet: bytes, ifindex: int, program: int, around_empty: int) -> None:
        self._packet = packet
        self._context = bytearray(_SK_BUFF)
        struct.pack_into("=I", self._context, _IFINDEX, ifindex)
        self._program = program
        self._around_empty = around_empty

    def net_ns(self, repeat: int) -> float:
        """CPU nanoseconds a packet, of one measurement: take the median of many."""
        return self._cpu_ns(self._program, repeat) - self._cpu_ns(self._around_empty, repeat)

    def run(self, repeat: int = 1) -> programs.Run:
        return programs.run(self._program, self._packet, bytes(self._context), repeat)

    def _cpu_ns(self, program: int, repeat: int) -> float:
        context = bytes(self._context)
        began = time.thread_time_ns()
        programs.run(program, self._packet, context, repeat)
        return (time.thread_time_ns() - began) / repeat


class Bench:
    """Where programs are run: a folder of bpffs, and built objects. Use it by `bench`."""

    def __init__(self, folder: Path, objects: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._objects = objects
        self._stack = stack
        self._slots = EMPTY
        self._slot_of: dict[int, int] = {}

    def object(self, name: str, options: dict[str, int | list[int]]) -> BpfObject:
        """Loaded, for as long as the bench is."""
        found = self._stack.enter_context(BpfObject(self._objects / f"{name}.bpf.o", self.folder))
        for option, value in options.items():
            found.set_option(option, value)
        found.load()
        return found

    def again(self, program: int, packet: bytes, ifindex: int = 0, flows: Flows | None = None) -> Again:
        """`program` is a descriptor; `ifindex` 0 is the loopback."""
        options = options_for(packet, flows)
        around_empty = self.object("again", {**options, "slot": EMPTY})
        self._enter(EMPTY, around_empty.descriptor("empty"))
        if program not in self._slot_of:
            self._slots += 1
            self._slot_of[program] = self._slots
            self._enter(self._slots, program)
        around = self.object("again", {**options, "slot": self._slot_of[program]})
        return Again(packet, ifindex, around.descriptor("again"), around_empty.descriptor("again"))

    def map(self, name: str) -> int:
        """A descriptor of a map that was pinned by one of our objects."""
        return self._stack.enter_context(held(syscalls.get(str(self.folder / name))))

    def _enter(self, slot: int, program: int) -> None:
        key, value = np.array([slot], np.uint32), np.array([program], np.uint32)
        if error := maps.update_singly(self.map("targets"), key, value):
            raise syscalls.refusal(error, f"entering a program in slot {slot}")


def options_for(packet: bytes, flows: Flows | None) -> dict[str, int | list[int]]:
    """Load-time options of `again` and `receive`."""
    words = _WORDS4 if len(packet) <= _WORDS4 * _WORD else _WORDS6
    content = packet[: words * _WORD].ljust(_WORDS6 * _WORD, b"\0")
    options: dict[str, int | list[int]] = {
        "packet": list(struct.unpack(f"={_WORDS6}Q", content)),
        "words": min(words, len(packet) // _WORD),
    }
    if flows:
        options |= {
            "vary_count": flows.count,
            "vary_offset": flows.offset,
            "vary_first": flows.first,
            "vary_step": flows.step,
        }
    return options


@contextmanager
def bench(folder: Path, objects: Path) -> Iterator[Bench]:
    """`folder` is made on bpffs and removed with what is pinned in it."""
    folder.mkdir()
    try:
        with ExitStack() as stack:
            yield Bench(folder, objects, stack)
    finally:
        for pin in folder.iterdir():
            pin.unlink()
        folder.rmdir()
