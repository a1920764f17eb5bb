"""What nobody can be faster than: one lookup of a flow, or one insert (bpf/limits.bpf.c)."""

from __future__ import annotations

import numpy as np

from reconciler.bpf import maps
from tests.bench.again import Bench

FLOW = np.dtype([("addresses", "V8"), ("source", ">u2"), ("destination", ">u2"), ("protocol", "<u4")])
_MOST = 1 << 17  # entries of `new_flows`


def forget_new_flows(tool: Bench) -> None:
    """What `remember` has inserted so far."""
    table = tool.map("new_flows")
    maps.delete(table, maps.read(table, FLOW, np.dtype(np.uint64), _MOST)[0])
