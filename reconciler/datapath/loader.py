"""Loading the host's programs, once for all workloads, with their options; maps keep their rows.

What a program is follows from its object file, its options and the sizes of its maps: their digest is part of its pin,
so loading the same again does nothing. A map whose layout or size changed cannot be kept: it is renamed away and made
anew, empty, which is said; the tables then fill it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from reconciler import shipped
from reconciler.bpf import bpffs, btf, clock, maps, pins, syscalls
from reconciler.bpf.maps import ARRAY_OF_MAPS, HASH_OF_MAPS
from reconciler.bpf.syscalls import held
from reconciler.datapath.features import has
from reconciler.datapath.objects import BpfObject, Declaration, Option, compatible
from reconciler.errors import KernelError
from reconciler.model.datapath import ProgramRow

log = logging.getLogger(__name__)

OBJECTS = ("endpoint", "netdev", "xdp", "overlay", "socket", "collect", "services", "fingerprint")
_IN_DRIVER = "in_driver"  # the one program for which that is good: bpf/xdp.bpf.c
_DIGEST = 12  # hexadecimal digits


class Datapath:
    """The programs of `OBJECTS` under one pin root.

    `options`: name -> number, or bytes for arrays. `map_sizes`: map name -> entries. What is not given is as in C, but
    for the kernel's tick, which is asked for. `left_out`: objects that this kernel cannot load; theirs mean nothing.
    A name that no object knows is an error, told when the objects are first read.
    """

    def __init__(
        self,
        pin_root: Path,
        options: Mapping[str, Option] | None = None,
        map_sizes: Mapping[str, int] | None = None,
        *,
        objects: Path | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        self.pin_root = pin_root
        self._options = {"jiffy_ns": clock.tick_ns(), **(options or {})}
        self._map_sizes = dict(map_sizes or {})
        self._pins: dict[str, frozenset[str]] = {}  # object name -> pins of its maps
        self._left_out = frozenset(left_out)
        self.folder = objects or shipped.bpf_objects()

    def program_rows(self) -> Mapping[str, ProgramRow]:
        """Program name -> row, of all programs as they should be. Raises KernelError for unknown options or maps."""
        return {name: ProgramRow(digest) for names, digest in self._contents.values() for name in names}

    def load(self) -> None:
        """Load and pin every program that is not pinned already with the maps that are. Raises KernelError."""
        bpffs.ensure(self.pin_root)
        contents = self._contents
        serving: set[str] = set()  # pins of maps that an object of ours already reads
        for object_name, (names, digest) in contents.items():
            good = {(pin.name, pin.digest) for pin in pins.pinned_programs(self.pin_root) if pin.intact and not pin.old}
            if not good >= {(name, digest) for name in names}:
                self._load(object_name, names, digest, serving)
            serving |= self._pins[object_name]

    def load_program(self, name: str, row: ProgramRow) -> None:
        """Load and pin one program, and what shares its object with it.

        Raises KernelError if `row` is not what our objects and options make of it.
        """
        if self.program_rows().get(name) != row:
            raise KernelError(f"program {name} {row.digest} is not what this version and configuration would load")
        self.load()

    @cached_property
    def _contents(self) -> Mapping[str, tuple[tuple[str, ...], str]]:
        """Object name -> its programs and their digest."""
        found: dict[str, tuple[tuple[str, ...], str]] = {}
        options, sizes = set(self._options), set(self._map_sizes)
        for name in OBJECTS:
            with self._open(name) as object_:
                options -= object_.options()
                sizes -= object_.maps().keys()
                if name in self._left_out:
                    continue
                found[name] = object_.programs(), self._digest(object_)
                self._pins[name] = frozenset(declared.pin for declared in object_.maps().values())
        if options or sizes:
            raise KernelError(f"no BPF object knows {', '.join(sorted(options | sizes))}")
        return found

    def _digest(self, object_: BpfObject) -> str:
        digest = hashlib.sha256((self.folder / object_.name).read_bytes())
        for name in sorted(object_.options() & self._options.keys()):
            value = self._options[name]
            digest.update(f"\0{name}={bytes(value) if not isinstance(value, int) else int(value)!r}".encode())
        for name in sorted(object_.maps().keys() & self._map_sizes.keys()):
            digest.update(f"\0{name}[{self._map_sizes[name]}]".encode())
        return digest.hexdigest()[:_DIGEST]

    def _open(self, name: str) -> BpfObject:
        return BpfObject(self.folder / f"{name}.bpf.o", self.pin_root / "maps")

    def _load(self, object_name: str, names: tuple[str, ...], digest: str, serving: Set[str]) -> None:
        with self._open(object_name) as object_:
            if self._digest(object_) != digest:
                raise KernelError(
                    f"{self.folder / object_.name} was replaced since this process began",
                    remedy="restart the daemon",
                )
            for option in object_.options() & self._options.keys():
                object_.set_option(option, self._options[option])
            for map_ in object_.maps().keys() & self._map_sizes.keys():
                object_.set_max_entries(map_, self._map_sizes[map_])
            if _IN_DRIVER in names and has("xdp_fragments"):
                object_.take_fragments(_IN_DRIVER)
            with _room(object_, serving):
                object_.load()
            for name in names:
                syscalls.pin(object_.descriptor(name), pins.program_path(self.pin_root, name, digest))
        log.info("programs loaded object=%s programs=%s digest=%s", object_name, ",".join(names), digest)


@contextmanager
def _room(object_: BpfObject, serving: Set[str]) -> Iterator[None]:
    """While an object is loaded: its pinned maps that cannot serve are out of the way; if it fails, back again.

    What maps in `serving` are is known: objects built together agree on their declarations.
    """
    pinned = [declared for declared in object_.maps().values() if declared.pin and declared.pin not in serving]
    moved = [declared.pin for declared in pinned if _make_way(declared, object_.btf)]
    try:
        yield
    except BaseException:
        for pin in moved:
            os.rename(pin + pins.OLD, pin)
        raise


def _make_way(declared: Declaration, types: btf.Btf) -> bool:
    """Rename a pinned map if it cannot serve; libbpf then makes and pins a new one."""
    if not os.path.lexists(declared.pin):
        return False
    with held(syscalls.get(declared.pin)) as descriptor:
        about = maps.info(descriptor)
        pinned = Declaration(
            declared.name,
            about.kind,
            about.key_size,
            about.value_size,
            about.max_entries,
            about.flags,
            declared.pin,
            about.key_type,
            about.value_type,
            *_inner_sizes(descriptor, about),
        )
    reason = compatible(declared, types, pinned, btf.of_kernel(about.btf) if about.btf else None)
    if reason:
        os.rename(declared.pin, declared.pin + pins.OLD)
        log.warning("map replaced name=%s reason=%r", declared.name, reason)
    return bool(reason)


def _inner_sizes(descriptor: int, about: maps.MapInfo) -> tuple[int, int]:
    """Key and value size of the maps that this one holds, by its first; 0 if there are none or it holds no maps."""
    if about.kind not in (ARRAY_OF_MAPS, HASH_OF_MAPS):
        return 0, 0
    _, numbers = maps.read(descriptor, btf.raw(about.key_size), btf.NUMBER, about.max_entries)
    if not len(numbers):
        return 0, 0
    with held(syscalls.by_id(syscalls.MAP_BY_ID, int(numbers[0]), f"opening map {numbers[0]}")) as inner:
        found = maps.info(inner)
        return found.key_size, found.value_size
