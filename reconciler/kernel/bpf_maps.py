"""Pinned maps as columns: read, write and delete by batches, in the layout that BTF gives.

Measured with 1,000,000 rows of 12 and 8 bytes: everything read in 290 ms, 1,000 rows written in 0.3 ms.
"""

from __future__ import annotations

import errno
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler import shipped
from reconciler.bpf import btf, maps, syscalls
from reconciler.bpf.btf import Btf
from reconciler.bpf.maps import HASH, HASH_OF_MAPS, MapInfo, Records
from reconciler.engine.match import match, words
from reconciler.errors import KernelError

Dtype = np.dtype[Any]

_LAYOUT_OBJECT = "policy_layout.bpf.o"  # types that no map carries
_OUTER_KEYS = {"policy": "subject_key"}  # of maps of maps with more than a number as key
_READ_WHOLE = 8  # from a key for so many rows of room on, reading a full hash is no slower than asking key by key
_FULL = (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)


class Map:
    """One open map; its rows are numpy records of `key_dtype` and `value_dtype`. Closed when nobody holds it."""

    def __init__(self, name: str, descriptor: int, info: MapInfo, types: Btf) -> None:
        """`types` have the key of a map of maps, which carries none itself."""
        self.name = name
        self.descriptor = descriptor
        self.info = info
        self._types = types

    def __del__(self) -> None:
        os.close(self.descriptor)

    @cached_property
    def key_dtype(self) -> Dtype:
        if self.info.kind == HASH_OF_MAPS:
            return self._types.struct(_OUTER_KEYS[self.name]) if self.name in _OUTER_KEYS else btf.NUMBER
        return self._dtype(self.info.key_type, self.info.key_size)

    @cached_property
    def value_dtype(self) -> Dtype:
        """Of a map of maps: the id of the map in it (written: a file descriptor of it)."""
        return btf.NUMBER if self.info.kind == HASH_OF_MAPS else self._dtype(self.info.value_type, self.info.value_size)

    def _dtype(self, number: int, size: int) -> Dtype:
        return btf.of_kernel(self.info.btf).dtype(number) if self.info.btf and number else btf.raw(size)

    def read(self) -> tuple[Records, Records]:
        """Every key and value, in the map's order."""
        return maps.read(self.descriptor, self.key_dtype, self.value_dtype, self.info.max_entries)

    def lookup(self, keys: Records) -> tuple[NDArray[np.bool_], Records]:
        """Which keys are there, and their values (zeros where not). In an LPM trie: the longest match.

        2 us a key; of a hash at most what reading it costs. No key twice.
        """
        if len(keys) > 1 and maps.is_empty(self.descriptor, self.info.key_size):
            return np.zeros(len(keys), np.bool_), np.zeros(len(keys), self.value_dtype)
        if self.info.kind == HASH and len(keys) * _READ_WHOLE > self.info.max_entries:
            return self._joined(keys)
        return maps.lookup(self.descriptor, keys, self.value_dtype)

    def _joined(self, keys: Records) -> tuple[NDArray[np.bool_], Records]:
        """As `lookup`, out of all rows."""
        there, rows = self.read()
        index = match(words(keys), words(there))
        found = index >= 0
        values = np.zeros(len(keys), self.value_dtype)
        values[found] = rows[index[found]]
        return found, values

    def update(self, keys: Records, values: Records) -> None:
        """Insert or overwrite, in the order given. Raises KernelError; one that says so if the map is full."""
        if error := maps.update(self.descriptor, keys, values):
            raise self._refusal(error, f"writing {len(keys)} rows to map {self.name}")

    def delete(self, keys: Records) -> None:
        """What is not there is passed over."""
        if error := maps.delete(self.descriptor, keys):
            raise self._refusal(error, f"deleting {len(keys)} rows of map {self.name}")

    def _refusal(self, error: int, doing: str) -> KernelError:
        if error not in _FULL:
            return syscalls.refusal(error, doing)
        rows = len(self.read()[0])
        return KernelError(
            f"map {self.name} is full: {rows} of {self.info.max_entries} rows ({doing})",
            remedy="ask for less in the policy repository, or enlarge the map",
            errno=error,
        )


class PinnedMaps:
    """The maps pinned below a pin root, opened when they are first needed and again when their pins were replaced."""

    def __init__(self, root: Path, *, objects: Path | None = None) -> None:
        """`root` as in `bpf.pins`; `objects`: the folder of the built objects."""
        self.root = root
        self._folder = str(root / "maps")
        self._objects = objects or shipped.bpf_objects()
        self._open: dict[str, tuple[int, Map]] = {}

    def find(self, name: str) -> Map | None:
        """None if nothing is pinned by this name, as before the programs were ever loaded."""
        path = self.path(name)
        try:
            inode = os.stat(path).st_ino
        except FileNotFoundError:
            self._open.pop(name, None)
            return None
        except OSError as error:
            raise syscalls.refusal(error.errno or 0, f"opening map {name}") from error
        if name in self._open and self._open[name][0] == inode:
            return self._open[name][1]
        descriptor = syscalls.get(path)
        found = Map(name, descriptor, maps.info(descriptor), self._types)
        self._open[name] = inode, found
        return found

    def open(self, name: str) -> Map:
        """Raises KernelError if it is not pinned."""
        if found := self.find(name):
            return found
        raise KernelError(f"map {name} is not pinned at {self.path(name)}", remedy="load the programs: plumb apply")

    def path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    @cached_property
    def policy_layout(self) -> tuple[Dtype, Dtype]:
        """Key and value of the inner maps of `policy`."""
        return self._types.struct("policy_key"), self._types.struct("policy_value")

    @cached_property
    def _types(self) -> Btf:
        return btf.of_file(self._objects / _LAYOUT_OBJECT)
