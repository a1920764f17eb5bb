"""The datapath's counters: packets and bytes by reason, new flows, and events that nobody got to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconciler.bpf import maps
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import Map
from reconciler.observe.flow import REASONS, Reason

# enum counter in bpf/lib/events.h: one for each reason, then these.
_LOST_EVENTS = len(REASONS)
_NEW_FLOWS = _LOST_EVENTS + 1
_COUNTERS = _NEW_FLOWS + 1
_POSSIBLE = Path("/sys/devices/system/cpu/possible")


@dataclass(frozen=True, slots=True)
class Counter:
    """Summed over all CPUs since the map was made; both only ever grow."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Counters:
    """`by_reason` has every reason. Packets of a known flow are not counted here, conntrack has them."""

    by_reason: Mapping[Reason, Counter]
    new_flows: Counter
    lost_events: int


def read(counters: Map) -> Counters:
    """From the pinned map `counters`; 30 us. Raises KernelError."""
    per_cpu = np.dtype([("cpu", counters.value_dtype, (possible_cpus(),))])
    found, rows = maps.lookup(counters.descriptor, np.arange(_COUNTERS, dtype=np.uint32), per_cpu)
    if not found.all():
        raise KernelError("the datapath has fewer counters than this version knows; load it again")
    packets, lengths = rows["cpu"]["packets"].sum(axis=1), rows["cpu"]["bytes"].sum(axis=1)
    every = [Counter(int(packets[number]), int(lengths[number])) for number in range(_COUNTERS)]
    by_reason = {reason: every[number] for number, reason in REASONS.items()}
    return Counters(by_reason, every[_NEW_FLOWS], every[_LOST_EVENTS].packets)


def possible_cpus() -> int:
    """How many values a per-CPU map returns for one key: `0-3,8` is five."""
    spans = [part.split("-") for part in _POSSIBLE.read_text().strip().split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
