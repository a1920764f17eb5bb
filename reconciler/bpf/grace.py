"""RCU grace periods: after one, no program runs any more that may have read what was there before.

Waiting for one is what some changes are made of, and sometimes all that they take.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from reconciler.bpf import maps
from reconciler.bpf.syscalls import held, refusal

log = logging.getLogger(__name__)

_HASTE = "/sys/kernel/rcu_expedited"  # kernel/ksysfs.c; 0 is off, every other number on
_OFF, _OURS = 0, 112  # the number that marks our routes as well
_ZERO = np.zeros(1, np.uint32)


def wait_for_programs() -> None:
    """Every program run that began before the call has ended; an RCU grace period, 2 to 30 ms.

    There is no call for it, but an update of a map of maps promises it when it returns (kernel/bpf/syscall.c,
    maybe_wait_bpf_programs, since 4.20), so one is made for the purpose.
    """
    with (
        held(maps.create(maps.ARRAY, 4, 4, 1, name="grace")) as inner,
        held(maps.create(maps.ARRAY_OF_MAPS, 4, 4, 1, inner=inner, name="grace")) as outer,
    ):
        if error := maps.update_singly(outer, _ZERO, np.array([inner], np.uint32)):
            raise refusal(error, "waiting for running programs")


@contextmanager
def hurried() -> Iterator[None]:
    """On this machine a grace period takes 0.1 ms instead of 2 to 30 until the block ends, at the price of interrupts.

    For calls that wait for one (attaching to a hook, with the lock held that every change of a network device needs).
    Nothing is different where the switch cannot be written or is on already; the kernel's parameter `rcu_normal`
    overrules it. It carries a number of ours while it is on, so that what a killed process left on is turned off by
    whoever comes next.
    """
    try:
        switch = os.open(_HASTE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        log.debug("grace periods take their time reason=%s", error)
        yield
        return
    with held(switch):
        fcntl.flock(switch, fcntl.LOCK_EX)
        if int(os.pread(switch, 16, 0)) not in (_OFF, _OURS):
            yield
            return
        os.pwrite(switch, b"%d" % _OURS, 0)
        try:
            yield
        finally:
            os.pwrite(switch, b"%d" % _OFF, 0)
