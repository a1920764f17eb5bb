"""Programs run on many packets, one after the other (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf import syscalls
from reconciler.bpf.syscalls import address

_RUN = struct.Struct("=IIIIQQIIIIQQIIII")  # union bpf_attr: program, result, sizes, packets, repeat, contexts, ...


def run_each(descriptor: int, packets: NDArray[np.uint8], context: bytes) -> None:
    """Run a program once on each row, for what it leaves in maps; `context` is a struct __sk_buff.

    2 us a packet more than the run itself.
    """
    packets = np.ascontiguousarray(packets)
    attributes, given = bytearray(_RUN.size), bytearray(context)
    call = syscalls.prepared(syscalls.TEST_RUN, attributes)
    length, where = packets.shape[1], address(given)
    for place in range(packets.ctypes.data, packets.ctypes.data + packets.size, length):
        _RUN.pack_into(attributes, 0, descriptor, 0, length, 0, place, 0, 1, 0, len(given), 0, where, 0, 0, 0, 0, 0)
        _, error = call()
        if error:
            raise syscalls.refusal(error, "running a program")
