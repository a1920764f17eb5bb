"""Records of the datapath's `events` ring buffer, decoded into `FlowEvent`s.

The layout is `struct event` of `bpf/lib/events.h`, taken from BTF; only the meaning of its fields is known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from reconciler.bpf import btf, clock
from reconciler.errors import KernelError
from reconciler.observe.flow import REASONS, EventType, FlowEvent, Side, is_icmp
from reconciler.shipped import bpf_objects

_LAYOUT = "flow_layout.bpf.o"
_PORTS = ("source_port", "destination_port")
_ADDRESSES = ("source", "destination")
_FIELDS = (
    *("time_ns", "type", "reason", "side", "family", "protocol", "tcp_flags", "source_port", "destination_port"),
    *("icmp_code", "reply", "source_identity", "destination_identity", "cookie", "generation", "ifindex", "length"),
    *("source", "destination"),
)


def wall_clock_offset_ns() -> int:
    """What to add to CLOCK_MONOTONIC to get nanoseconds since 1970."""
    return time.time_ns() - time.monotonic_ns()


def datapath_clock() -> Callable[[], int]:
    """Tells what to add to the datapath's time to get the same. Raises KernelError."""
    lag_ns = clock.lag_ns()
    return lambda: wall_clock_offset_ns() + lag_ns


def shipped_layout() -> np.dtype[np.void]:
    """Of `struct event`, as our own objects were built. Raises KernelError if they were not."""
    return btf.of_file(bpf_objects() / _LAYOUT).struct("event")


class Decoder:
    """Records to events, in their order. About 5 us each.

    layout       dtype of `struct event`: `shipped_layout()`
    offset_ns    what turns the record's time into time since 1970, `datapath_clock()`; asked once for each batch

    Raises KernelError if the layout lacks a field or a record has another size: program and package are not of one
    version then.
    """

    def __init__(self, layout: np.dtype[np.void], offset_ns: Callable[[], int] | None = None) -> None:
        self._record = _typed(layout)
        self._offset_ns = offset_ns or datapath_clock()

    def decode(self, records: Iterable[bytes]) -> list[FlowEvent]:
        """Each record is what the ring buffer delivered for one event."""
        joined = b"".join(records)
        if len(joined) % self._record.itemsize:
            raise KernelError(f"an event record is not {self._record.itemsize} bytes long, as its layout says")
        offset_ns = self._offset_ns()
        return [_event(fields, offset_ns) for fields in np.frombuffer(joined, self._record).tolist()]


def _typed(layout: np.dtype[np.void]) -> np.dtype[np.void]:
    """The fields we read, at the layout's offsets, ports in network order and addresses as bytes."""
    places = {name: place[:2] for name, place in (layout.fields or {}).items()}
    missing = [name for name in _FIELDS if name not in places]
    if missing:
        raise KernelError(f"the datapath's event layout lacks {', '.join(missing)}")
    formats = [
        np.dtype(">u2") if name in _PORTS else np.dtype("V16") if name in _ADDRESSES else places[name][0]
        for name in _FIELDS
    ]
    offsets = [places[name][1] for name in _FIELDS]
    return np.dtype({"names": list(_FIELDS), "formats": formats, "offsets": offsets, "itemsize": layout.itemsize})


def _address(family: int, raw: bytes) -> IPv4Address | IPv6Address:
    return IPv6Address(raw) if family == 6 else IPv4Address(raw[:4])


def _event(record: tuple[int | bytes, ...], offset_ns: int) -> FlowEvent:
    *numbers, source, destination = record
    (time_ns, kind, reason, side, family, protocol, tcp_flags, sport, dport, code, reply, *rest) = map(int, numbers)
    source_identity, destination_identity, cookie, generation, ifindex, length = rest
    if reason not in REASONS:
        raise KernelError(f"the datapath gives a reason {reason} that this version does not know")
    icmp = is_icmp(protocol)
    return FlowEvent(
        time_ns=time_ns + offset_ns,
        type=EventType(kind),
        reason=REASONS[reason],
        side=Side(side),
        family=family,
        protocol=protocol,
        source=_address(family, bytes(source)),
        destination=_address(family, bytes(destination)),
        source_port=0 if icmp else sport,
        destination_port=0 if icmp else dport,
        tcp_flags=tcp_flags,
        icmp_type=dport if icmp else None,
        icmp_code=code if icmp else None,
        icmp_identifier=sport if icmp else None,
        source_identity=source_identity,
        destination_identity=destination_identity,
        cookie=cookie,
        generation=generation,
        ifindex=ifindex,
        length_bytes=length,
        reply=bool(reply),
    )
