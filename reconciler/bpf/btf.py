"""Types out of BTF as numpy dtypes: C is the only place where a layout is written down.

A struct becomes a structured dtype with C's offsets and padding, an array a subarray, an enum an integer, a union
bytes. Format: the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reconciler.bpf.libbpf import Pointer, encoded, library, pointer
from reconciler.errors import KernelError

_INT, _POINTER, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_FUNCTION, _DATASEC, _ENUM64 = 12, 15, 19
_SIGNED = 1 << 24  # BTF_INT_SIGNED in the word behind an integer type
_ADDRESS_BYTES = 8

Dtype = np.dtype[Any]
NUMBER = np.dtype(np.uint32)


def raw(size: int) -> Dtype:
    """Of something whose bytes are all that counts."""
    return np.dtype((np.void, size))


class _Type(NamedTuple):
    """struct btf_type; `extra` is where what follows it lies, `size` may be another type's id."""

    name: str
    kind: int
    length: int
    bitfields: bool
    size: int
    extra: int


class Variable(NamedTuple):
    """One variable of a data section: where it lies therein, and its type."""

    offset: int
    dtype: Dtype


class Btf:
    """The types of one object. Its pointer must outlive it; `owned` ones are freed with it."""

    def __init__(self, types: Pointer, *, owned: bool) -> None:
        self._types = types
        if owned:
            weakref.finalize(self, library().btf__free, types).atexit = False

    def dtype(self, number: int) -> Dtype:
        """Of the type with this id. Raises KernelError for what has no layout (a forward declaration, a function)."""
        resolved: int = library().btf__resolve_type(self._types, number)
        if resolved < 0:
            raise KernelError(f"BTF type {number} cannot be resolved")
        found = self._type(resolved)
        if found.kind in (_INT, _ENUM, _ENUM64):
            signed = found.kind == _INT and struct.unpack("=I", ctypes.string_at(found.extra, 4))[0] & _SIGNED
            return np.dtype(f"{'i' if signed else 'u'}{found.size}")
        if found.kind == _POINTER:
            return np.dtype(f"u{_ADDRESS_BYTES}")
        if found.kind == _ARRAY:
            element, _, length = struct.unpack("=III", ctypes.string_at(found.extra, 12))
            return np.dtype((self.dtype(element), (length,)))
        if found.kind == _UNION:
            return np.dtype(f"V{found.size}")
        if found.kind == _STRUCT:
            return self._struct(found)
        raise KernelError(f"BTF type {found.name or number} has no layout")

    def struct(self, name: str) -> Dtype:
        """Of `struct name`, or of a typedef of that name. Raises KernelError if there is none."""
        number = library().btf__find_by_name(self._types, name.encode())
        if number < 0:
            raise KernelError(f"no type {name} in BTF", remedy="build the BPF objects again: make setup")
        return self.dtype(number)

    def enum(self, name: str) -> Mapping[str, int]:
        """The values of an enum, by name. Raises KernelError if there is none."""
        number = library().btf__find_by_name_kind(self._types, name.encode(), _ENUM)
        if number < 0:
            raise KernelError(f"no enum {name} in BTF", remedy="build the BPF objects again: make setup")
        found = self._type(number)
        pairs = struct.iter_unpack("=Ii", ctypes.string_at(found.extra, 8 * found.length))
        return {self._name(name_): value for name_, value in pairs}

    def section(self, name: str) -> Mapping[str, Variable]:
        """Variables of a data section such as `.rodata`, by name; empty if there is no such section."""
        number = library().btf__find_by_name_kind(self._types, name.encode(), _DATASEC)
        return dict(self._variables(self._type(number))) if number >= 0 else {}

    def function(self, name: str) -> int:
        """The id of a function, 0 if there is none of that name."""
        number: int = library().btf__find_by_name_kind(self._types, name.encode(), _FUNCTION)
        return max(0, number)

    def _variables(self, section: _Type) -> Iterator[tuple[str, Variable]]:
        for number, offset, _ in struct.iter_unpack("=III", ctypes.string_at(section.extra, 12 * section.length)):
            variable = self._type(number)
            yield variable.name, Variable(offset, self.dtype(variable.size))

    def _struct(self, found: _Type) -> Dtype:
        names: list[str] = []
        formats: list[Dtype] = []
        offsets: list[int] = []
        members = struct.iter_unpack("=III", ctypes.string_at(found.extra, 12 * found.length))
        for index, (name, number, bits) in enumerate(members):
            names.append(self._name(name) or f"_{index}")
            formats.append(self.dtype(number))
            offsets.append((bits & 0xFFFFFF if found.bitfields else bits) // 8)
        layout: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": found.size}
        made: Dtype = np.dtype(layout)
        return made

    def _type(self, number: int) -> _Type:
        at = library().btf__type_by_id(self._types, number)
        if not at:
            raise KernelError(f"no BTF type {number}")
        name, bits, size = struct.unpack("=III", ctypes.string_at(at, 12))
        return _Type(self._name(name), bits >> 24 & 31, bits & 0xFFFF, bool(bits >> 31), size, at + 12)

    def _name(self, offset: int) -> str:
        name: bytes = library().btf__name_by_offset(self._types, offset)
        return name.decode()


@lru_cache(maxsize=64)
def of_kernel(number: int) -> Btf:
    """The types that a map or program was loaded with, by BTF id (ids are not used again while the kernel runs)."""
    types = library().btf__load_from_kernel_by_id(number)
    return Btf(pointer(types, f"reading BTF {number} from the kernel"), owned=True)


def of_file(path: Path) -> Btf:
    """The types of a built object. Raises KernelError if it is missing or has no BTF."""
    if not path.is_file():
        raise KernelError(f"{path} is missing", remedy="build the BPF objects: make setup")
    return Btf(pointer(library().btf__parse(encoded(path), None), f"reading the types of {path}"), owned=True)


def of_running_kernel() -> Btf:
    """The kernel's own types. Raises KernelError where it was built without BTF."""
    return Btf(pointer(library().btf__load_vmlinux_btf(), "reading the kernel's BTF"), owned=True)
