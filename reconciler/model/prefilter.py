"""Who gets no answer at all: CIDRs whose packets node devices drop before anything else looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.model.datapath import IPCACHE_KEY
from reconciler.model.origin import Origin
from reconciler.model.selector import Selector

PREFILTER_KEY = IPCACHE_KEY  # a CIDR in the same form
PREFILTER_VALUE = np.dtype([("length", "<u4")])  # of the CIDR, in its own family
PLACE = np.dtype([("line", "<u4"), ("column", "<u4")])


@dataclass(frozen=True, slots=True)
class Prefilter:
    """What one document denies on the nodes that it selects.

    `deny` and `places` are records of PREFILTER_KEY and PLACE, an entry each and in the document's order: there may be
    100,000 of them.
    """

    name: str
    origin: Origin
    nodes: Selector
    deny: bytes
    places: bytes

    @property
    def keys(self) -> NDArray[np.void]:
        return np.frombuffer(self.deny, PREFILTER_KEY)

    def place(self, entry: int) -> Any:
        """A record of PLACE."""
        return np.frombuffer(self.places, PLACE)[entry]


def is_ipv4(keys: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of the CIDRs are IPv4's."""
    mapped: NDArray[np.bool_] = (keys["high"] == 0) & (keys["low"] >> np.uint64(32) == 0xFFFF) & (keys["bits"] >= 96)
    return mapped


def masked(keys: NDArray[np.void], bits: NDArray[np.uint32] | int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The two words of each address with only its first `bits` bits."""
    length = np.asarray(bits, np.int64)
    return keys["high"] & _mask(np.minimum(length, 64)), keys["low"] & _mask(np.maximum(length, 64) - 64)


def _mask(bits: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Words with so many bits set at their head; a shift by all 64 means nothing."""
    shift = np.minimum(64 - bits, 63).astype(np.uint64)
    return np.where(bits > 0, np.uint64(2**64 - 1) << shift, np.uint64(0))
