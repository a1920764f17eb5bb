"""Where the running kernel keeps what a filter asks for: offsets of struct members and arguments of tracepoints.

The generated program is compiled without the kernel's headers, so it reads by offset; the offsets come from the
kernel's own BTF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from reconciler.errors import FeatureMissing

_REASON_PREFIX = "SKB_DROP_REASON_"
_REASON_ENUM = "skb_drop_reason"

# Name in the generated program -> struct and member.
_MEMBERS = {
    "SKB_HEAD": ("sk_buff", "head"),
    "SKB_NETWORK_HEADER": ("sk_buff", "network_header"),
    "SKB_PROTOCOL": ("sk_buff", "protocol"),
    "SKB_LENGTH": ("sk_buff", "len"),
    "SKB_DEVICE": ("sk_buff", "dev"),
    "DEVICE_NAME": ("net_device", "name"),
    "DEVICE_INDEX": ("net_device", "ifindex"),
    "DEVICE_NET": ("net_device", "nd_net"),
    "NET_NUMBER": ("net", "ns.inum"),
    "SOCK_NET": ("sock_common", "skc_net"),
    "SOCK_FAMILY": ("sock_common", "skc_family"),
    "SOCK_STATE": ("sock_common", "skc_state"),
    "SOCK_SOURCE": ("sock_common", "skc_rcv_saddr"),
    "SOCK_DESTINATION": ("sock_common", "skc_daddr"),
    "SOCK_SOURCE6": ("sock_common", "skc_v6_rcv_saddr"),
    "SOCK_DESTINATION6": ("sock_common", "skc_v6_daddr"),
    "SOCK_SOURCE_PORT": ("sock_common", "skc_num"),
    "SOCK_DESTINATION_PORT": ("sock_common", "skc_dport"),
    "SOCK_PROTOCOL": ("sock", "sk_protocol"),
}


class KernelTypes(Protocol):
    """The kernel's BTF, as far as it is asked here."""

    def member_offset(self, struct: str, member: str) -> int | None:
        """Bytes from the struct's begin; through unnamed members, and `a.b` into named ones. None: not there."""
        ...

    def enumerators(self, enum: str) -> Mapping[str, int]:
        """Empty if there is no such enum."""
        ...

    def tracepoint_arguments(self, tracepoint: str) -> tuple[str, ...] | None:
        """Of each argument the type's name, without pointers and qualifiers: `sk_buff`, `int`. None: not there."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """`offsets`: name in the generated program -> bytes. `reasons`: drop reason in capitals -> number.
    `arguments`: tracepoint -> types of its arguments.
    """

    offsets: Mapping[str, int]
    reasons: Mapping[str, int]
    arguments: Mapping[str, tuple[str, ...]]


def layout(types: KernelTypes, tracepoints: tuple[str, ...]) -> Layout:
    """Raises FeatureMissing if the kernel keeps one of these elsewhere; tracepoints that it lacks are left out."""
    offsets = {name: types.member_offset(struct, member) for name, (struct, member) in _MEMBERS.items()}
    missing = [".".join(_MEMBERS[name]) for name, offset in offsets.items() if offset is None]
    if missing:
        raise FeatureMissing(f"this kernel's BTF has no {', '.join(missing)}")
    arguments = {name: types.tracepoint_arguments(name) for name in tracepoints}
    return Layout(
        {name: offset for name, offset in offsets.items() if offset is not None},
        {
            name.removeprefix(_REASON_PREFIX): number
            for name, number in types.enumerators(_REASON_ENUM).items()
            if name.startswith(_REASON_PREFIX) and not name.endswith(("_MAX", "_MASK"))
        },
        {name: found for name, found in arguments.items() if found is not None},
    )
