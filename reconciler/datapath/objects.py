"""One BPF object between its file and the kernel: options, sizes of maps, loading, file descriptors.

Maps that name `LIBBPF_PIN_BY_NAME` are pinned below the object's pin folder, or taken from there if they are already.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from reconciler.bpf.btf import Btf
from reconciler.bpf.libbpf import OpenOptions, Pointer, encoded, library, pointer
from reconciler.bpf.maps import ARRAY_OF_MAPS, HASH_OF_MAPS
from reconciler.bpf.programs import XDP_HAS_FRAGS
from reconciler.errors import KernelError

Option = int | bool | bytes | Sequence[int]

_OPTIONS_SECTION = ".rodata"


@dataclass(frozen=True, slots=True)
class Declaration:
    """A map as an object declares it; `pin` is '' if it is not pinned. `inner_*`: of the maps that it holds."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    pin: str
    key_type: int
    value_type: int
    inner_key_size: int = 0
    inner_value_size: int = 0


class BpfObject:
    """An opened object file. Close it, or use it in a `with`: what is pinned by then stays."""

    def __init__(self, path: Path, maps_folder: Path) -> None:
        """Raises KernelError if the file is missing or is no BPF object."""
        self.name = path.name
        self._options: dict[str, bytes] = {}
        if not path.is_file():
            raise KernelError(f"{path} is missing", remedy="build the BPF objects: make setup")
        library().said()
        options = OpenOptions(size=ctypes.sizeof(OpenOptions), pin_root_path=encoded(maps_folder))
        opened = library().bpf_object__open_file(encoded(path), ctypes.byref(options))
        self._object: Pointer = pointer(opened, f"opening {path}")
        self.btf = Btf(library().bpf_object__btf(self._object), owned=False)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._object:
            library().bpf_object__close(self._object)
            self._object = 0

    def options(self) -> frozenset[str]:
        """Names of the load-time options."""
        return frozenset(self.btf.section(_OPTIONS_SECTION))

    def set_option(self, name: str, value: Option) -> None:
        """Before loading. Raises KernelError if there is no such option or the value does not fit its type."""
        variables = self.btf.section(_OPTIONS_SECTION)
        if name not in variables:
            raise KernelError(f"{self.name} has no option {name}; it has {', '.join(sorted(variables)) or 'none'}")
        variable = variables[name]
        data = _as_bytes(f"{self.name}: option {name}", value, variable.dtype)
        size = ctypes.c_size_t()
        base = library().bpf_map__initial_value(self._options_map(), ctypes.byref(size))
        ctypes.memmove(base + variable.offset, data, len(data))

    def maps(self) -> dict[str, Declaration]:
        """The declared maps by name, without those that libbpf makes of data sections."""
        found = (self._declaration(map_) for map_ in self._maps())
        return {declaration.name: declaration for declaration in found if "." not in declaration.name}

    def set_max_entries(self, name: str, count: int) -> None:
        """Before loading. Raises KernelError if there is no such map."""
        for map_ in self._maps():
            if library().bpf_map__name(map_).decode() == name:
                if error := library().bpf_map__set_max_entries(map_, count):
                    raise library().failure(-error, f"{self.name}: sizing map {name}")
                return
        raise KernelError(f"{self.name} has no map {name}")

    def programs(self) -> tuple[str, ...]:
        return tuple(library().bpf_program__name(program).decode() for program in self._programs())

    def take_fragments(self, name: str) -> None:
        """Before loading: this XDP program is given packets in several buffers too, of which it sees the first."""
        for program in self._programs():
            if library().bpf_program__name(program).decode() == name:
                library().bpf_program__set_flags(program, XDP_HAS_FRAGS)

    def load(self) -> None:
        """Hand everything to the kernel: maps made or taken from their pins, programs verified.

        Raises KernelError, whose text ends with what the verifier said last.
        """
        library().said()
        if error := library().bpf_object__load(self._object):
            raise library().failure(-error, f"loading {self.name}")

    def descriptor(self, program: str) -> int:
        """Of a loaded program; it is the object's, and closed with it."""
        for found in self._programs():
            if library().bpf_program__name(found).decode() == program:
                return int(library().bpf_program__fd(found))
        raise KernelError(f"{self.name} has no program {program}")

    def _programs(self) -> Iterator[Pointer]:
        at = library().bpf_object__next_program(self._object, None)
        while at:
            yield at
            at = library().bpf_object__next_program(self._object, at)

    def _maps(self) -> Iterator[Pointer]:
        at = library().bpf_object__next_map(self._object, None)
        while at:
            yield at
            at = library().bpf_object__next_map(self._object, at)

    def _options_map(self) -> Pointer:
        named = (map_ for map_ in self._maps() if library().bpf_map__name(map_).decode().endswith(_OPTIONS_SECTION))
        return next(named)

    def _declaration(self, map_: Pointer) -> Declaration:
        lib = library()
        kind = lib.bpf_map__type(map_)
        inner = lib.bpf_map__inner_map(map_) if kind in (ARRAY_OF_MAPS, HASH_OF_MAPS) else None
        return Declaration(
            lib.bpf_map__name(map_).decode(),
            kind,
            lib.bpf_map__key_size(map_),
            lib.bpf_map__value_size(map_),
            lib.bpf_map__max_entries(map_),
            lib.bpf_map__map_flags(map_),
            (lib.bpf_map__pin_path(map_) or b"").decode(),
            lib.bpf_map__btf_key_type_id(map_),
            lib.bpf_map__btf_value_type_id(map_),
            lib.bpf_map__key_size(inner) if inner else 0,
            lib.bpf_map__value_size(inner) if inner else 0,
        )


def _as_bytes(what: str, value: Option, dtype: np.dtype[np.generic]) -> bytes:
    """The value as the C type has it. Raises KernelError if it does not fit."""
    numbers = list(value) if isinstance(value, (bytes, Sequence)) else int(value)
    try:
        made = np.array(numbers, dtype.base)
    except OverflowError as error:
        raise KernelError(f"{what}: {value!r} does not fit its type") from error
    if made.shape != dtype.shape or made.tolist() != numbers:
        raise KernelError(f"{what}: {value!r} does not fit its type")
    return made.tobytes()


def compatible(declared: Declaration, types: Btf, pinned: Declaration, pinned_types: Btf | None) -> str:
    """Why a pinned map cannot serve in the place of the declared one; '' if it can.

    The same sizes with another meaning are told by BTF, where the pinned map has it.
    """
    for field in ("kind", "key_size", "value_size", "max_entries", "flags"):
        old, new = getattr(pinned, field), getattr(declared, field)
        if old != new:
            return f"{field.replace('_', ' ')} {old}, now {new}"
    for part, old_type, new_type in (
        ("key", pinned.key_type, declared.key_type),
        ("value", pinned.value_type, declared.value_type),
    ):
        if pinned_types and old_type and new_type and pinned_types.dtype(old_type) != types.dtype(new_type):
            return f"another layout of its {part}"
    if declared.inner_key_size and not pinned.inner_key_size:
        return "empty, so that nobody knows what it may hold"
    if (pinned.inner_key_size, pinned.inner_value_size) != (declared.inner_key_size, declared.inner_value_size):
        return "another layout of the maps in it"
    return ""
