"""The running kernel's own BTF, asked for single members: where they lie, through unnamed structs and unions.

As numpy dtypes (`bpf.btf`) the kernel's big structs would be of no use: much of them is in unions.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reconciler.bpf.btf import Btf
from reconciler.bpf.libbpf import library
from reconciler.errors import FeatureMissing, KernelError

# enum in linux/btf.h
_POINTER, _STRUCT, _UNION, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG = 2, 4, 5, 8, 9, 10, 11, 18
_SEEN_THROUGH = (_POINTER, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
_VOID = 0
_MEMBER = struct.Struct("=III")  # struct btf_member: name, type, offset
_PARAMETER = struct.Struct("=II")  # struct btf_param: name, type


class _Member(NamedTuple):
    name: str
    type: int
    offset_bits: int


class RunningKernel(Btf):
    """Raises FeatureMissing where the kernel was built without BTF. Takes 20 ms and, while it lives, 12 MB."""

    def __init__(self) -> None:
        types = library().btf__load_vmlinux_btf()
        if not types:
            raise FeatureMissing("this kernel has no BTF (/sys/kernel/btf/vmlinux)")
        super().__init__(types, owned=True)

    def member_offset(self, struct_name: str, member: str) -> int | None:
        """Bytes from the struct's begin; `a.b` goes into a named member. None: not there, or a bit field."""
        number = library().btf__find_by_name_kind(self._types, struct_name.encode(), _STRUCT)
        bits = 0
        for name in member.split("."):
            found = self._find(number, name) if number > 0 else None
            if found is None:
                return None
            number, bits = self._behind(found.type), bits + found.offset_bits
        return None if bits % 8 else bits // 8

    def enumerators(self, enum: str) -> Mapping[str, int]:
        """Empty if there is no such enum."""
        try:
            return self.enum(enum)
        except KernelError:
            return {}

    def tracepoint_arguments(self, tracepoint: str) -> tuple[str, ...] | None:
        """Names of the arguments' types, without pointers and qualifiers. None if there is no such tracepoint.

        Every tracepoint NAME has a typedef btf_trace_NAME: a function whose first parameter is the tracer's own.
        """
        name = f"btf_trace_{tracepoint}".encode()
        number = library().btf__find_by_name_kind(self._types, name, _TYPEDEF)
        if number < 0:
            return None
        prototype = self._type(self._behind(number))
        raw = ctypes.string_at(prototype.extra, _PARAMETER.size * prototype.length)
        types = [self._behind(number) for _, number in _PARAMETER.iter_unpack(raw)]
        return tuple(self._type(number).name if number else "void" for number in types[1:])

    def _find(self, number: int, name: str) -> _Member | None:
        for member in self._members(number):
            if member.name == name:
                return member
            inner = None if member.name else self._find(self._behind(member.type), name)
            if inner:
                return inner._replace(offset_bits=member.offset_bits + inner.offset_bits)
        return None

    def _members(self, number: int) -> Iterator[_Member]:
        found = self._type(number)
        if found.kind not in (_STRUCT, _UNION):
            return
        for name, kind, bits in _MEMBER.iter_unpack(ctypes.string_at(found.extra, _MEMBER.size * found.length)):
            yield _Member(self._name(name), kind, bits & 0xFFFFFF if found.bitfields else bits)

    def _behind(self, number: int) -> int:
        """The type that pointers, typedefs and qualifiers lead to; 0 is void."""
        while number != _VOID and (found := self._type(number)).kind in _SEEN_THROUGH:
            number = found.size
        return number
