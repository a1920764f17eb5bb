"""The clock of our programs: ticks of the kernel as nanoseconds since boot (`clock_ns`, bpf/lib/base.h).

It goes as CLOCK_MONOTONIC does, a tick at a time, and lags behind by what the kernel did not count while it booted.
"""

from __future__ import annotations

import sys
import time

from reconciler.bpf import programs
from reconciler.bpf.programs import Instruction
from reconciler.bpf.syscalls import held

_MONOTONIC_COARSE = 6  # linux/time.h: CLOCK_MONOTONIC as of the last tick
_JIFFIES_THEN, _NS_THEN = 1 << 32, 300 * 10**9  # as in bpf/lib/base.h
_HELPER_JIFFIES64 = 118  # enum bpf_func_id
_SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE


def tick_ns() -> int:
    """How long a tick of this kernel is: the option `jiffy_ns` of our programs."""
    return round(time.clock_getres(_MONOTONIC_COARSE) * 1e9)


def lag_ns() -> int:
    """CLOCK_MONOTONIC less the clock of our programs: the same until the next boot. Raises KernelError."""
    with held(_program()) as program:
        while True:
            before = time.clock_gettime_ns(_MONOTONIC_COARSE)
            jiffies = int.from_bytes(programs.run_syscall(program, bytes(8)).context, sys.byteorder)
            if time.clock_gettime_ns(_MONOTONIC_COARSE) == before:  # in one tick
                return before - (jiffies - _JIFFIES_THEN) * tick_ns() - _NS_THEN


def _program() -> int:
    """Answers with the kernel's count of ticks."""
    code: list[Instruction] = [
        programs.copy(6, 1),
        programs.call(_HELPER_JIFFIES64),
        programs.store(6, 0, 0, 8),
        programs.move(0, 0),
        programs.leave(),
    ]
    return programs.load_program(programs.SYSCALL, code, name="ticks", flags=_SLEEPABLE)
