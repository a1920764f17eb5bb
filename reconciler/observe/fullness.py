"""How full the maps of flows are: what lives in each, as their collectors count it, beside the room there is.

A full map forgets its least recently used flows, and nothing tells which: this says beforehand whether it will.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.bpf.programs import run_syscall

# Collector -> the maps that `live` of struct collection (bpf/lib/collection.h) is about.
COLLECTORS: Mapping[str, tuple[str, str, str]] = {
    "collect_conntrack": ("conntrack4", "conntrack6", "translations"),
    "collect_services": ("service_flows4", "service_flows6", "affinities"),
}
_COLLECTION = struct.Struct("=2I3I")


@dataclass(frozen=True, slots=True)
class Fullness:
    """`live`: entries that had not expired when they were counted, of `entries` that there is room for."""

    live: int
    entries: int


def collect(name: str, program: int) -> Mapping[str, int]:
    """Runs a collector, which removes what has expired. Map -> live entries. Raises KernelError."""
    _, _, *live = _COLLECTION.unpack(run_syscall(program, bytes(_COLLECTION.size)).context)
    return dict(zip(COLLECTORS[name], live, strict=True))
