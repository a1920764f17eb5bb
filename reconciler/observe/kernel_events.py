"""What `plumb monitor --kernel` can ask of the kernel: its events, their fields, and what a field may be compared with.

A field is a member of the record that the generated program fills in (kernel_program.py). Numbers of TCP states:
linux net/tcp_states.h. Reasons of drops differ between kernels and come from the running one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from reconciler.model.policy import PROTOCOLS


class Kind(Enum):
    NUMBER = "a number, or a range such as 8000-8999"
    NAME = "a name or its number"
    ADDRESS = "an address, or with `in` a network"
    TEXT = "a word of at most 15 bytes, in quotes if need be"


@dataclass(frozen=True, slots=True)
class Field:
    """`names`: what a NAME may be, in capitals -> its number."""

    name: str
    kind: Kind
    meaning: str
    largest: int = 2**32 - 1
    names: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """`tracepoint` is the kernel's, without its group."""

    name: str
    tracepoint: str
    meaning: str
    fields: Mapping[str, Field]


TCP_STATES: Mapping[str, int] = MappingProxyType(
    {
        "ESTABLISHED": 1,
        "SYN_SENT": 2,
        "SYN_RECV": 3,
        "FIN_WAIT1": 4,
        "FIN_WAIT2": 5,
        "TIME_WAIT": 6,
        "CLOSE": 7,
        "CLOSE_WAIT": 8,
        "LAST_ACK": 9,
        "LISTEN": 10,
        "CLOSING": 11,
        "NEW_SYN_RECV": 12,
    }
)

_PACKET = (
    Field("family", Kind.NUMBER, "4, 6, or 0 for what is not IP", 255),
    Field("protocol", Kind.NAME, "IP protocol", 255, PROTOCOLS),
    Field("saddr", Kind.ADDRESS, "source address"),
    Field("daddr", Kind.ADDRESS, "destination address"),
    Field("sport", Kind.NUMBER, "source port, 0 without one", 65535),
    Field("dport", Kind.NUMBER, "destination port, 0 without one", 65535),
    Field("netns", Kind.NUMBER, "inode of the network namespace (stat -L -c %i /run/netns/NAME)"),
)
_DROP = (
    Field("length", Kind.NUMBER, "bytes of the packet, as far as headers were not yet taken off"),
    Field("ifindex", Kind.NUMBER, "index of its device, 0 without one"),
    Field("ifname", Kind.TEXT, "name of its device"),
)
_OLD = Field("oldstate", Kind.NAME, "TCP state before", 255, TCP_STATES)
_NEW = Field("newstate", Kind.NAME, "TCP state after", 255, TCP_STATES)
_STATE = Field("state", Kind.NAME, "TCP state", 255, TCP_STATES)


def catalogue(reasons: Mapping[str, int]) -> Mapping[str, Event]:
    """Every event by name. `reasons`: drop reasons of the running kernel in capitals -> number; empty before 5.17."""
    reason = (Field("reason", Kind.NAME, "why the kernel dropped it", names=reasons),) if reasons else ()
    events = (
        _event("drop", "kfree_skb", "the kernel drops a packet", _PACKET + _DROP + reason),
        _event("state", "inet_sock_set_state", "a socket changes its TCP state", (*_PACKET, _OLD, _NEW)),
        _event("retransmit", "tcp_retransmit_skb", "TCP sends a segment again", (*_PACKET, _STATE)),
        _event("reset", "tcp_receive_reset", "a TCP connection is reset by the other side", (*_PACKET, _STATE)),
    )
    return MappingProxyType({event.name: event for event in events})


def _event(name: str, tracepoint: str, meaning: str, fields: tuple[Field, ...]) -> Event:
    return Event(name, tracepoint, meaning, MappingProxyType({each.name: each for each in fields}))


def describe(events: Mapping[str, Event]) -> str:
    """Help text: each event with its fields."""
    lines = []
    for event in events.values():
        lines.append(f"{event.name}: {event.meaning}")
        lines += [f"  {each.name:<10} {each.meaning} ({each.kind.value})" for each in event.fields.values()]
    return "\n".join(lines)
