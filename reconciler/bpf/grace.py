"""Waiting until no program runs any more that may have read what was there before."""

from __future__ import annotations

import numpy as np

from reconciler.bpf import maps
from reconciler.bpf.syscalls import held, refusal

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
