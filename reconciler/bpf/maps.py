"""Maps by bpf(2): creating, what they are, and their entries one by one and in batches.

Entries travel as contiguous numpy arrays, one record an entry; keys and values are never copied on the way.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf import syscalls
from reconciler.bpf.syscalls import address, attempt, bpf, packed, prepared, refusal
from reconciler.errors import KernelError

Records = NDArray[Any]

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY = 1, 2, 5, 6
LRU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS, RINGBUF = 9, 11, 12, 13, 27

NO_PREALLOC = 1  # BPF_F_NO_PREALLOC, which LPM tries insist on
INNER_MAP = 1 << 12  # BPF_F_INNER_MAP: beside others of other sizes in one map of maps

_ELEMENT = struct.Struct("=IIQQQ")  # of union bpf_attr: map_fd, key, value or next_key, flags
_BATCH = struct.Struct("=QQQQIIQQ")  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
_BATCH_COUNT = 32  # offset of `count` therein
_INFO_SIZE = 88  # struct bpf_map_info up to map_extra
_FIRST_CHUNK, _CHUNK = 1 << 12, 1 << 16
_LARGEST_CHUNK = 1 << 24


@dataclass(frozen=True, slots=True)
class MapInfo:
    """`flags` are BPF_F_*. `btf` and the types therein are 0 for a map that was made without."""

    kind: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf: int
    key_type: int
    value_type: int


def create(
    kind: int, key_size: int, value_size: int, max_entries: int, *, flags: int = 0, inner: int = 0, name: str = ""
) -> int:
    """A file descriptor of a new map. `inner`: a map like those that it will hold; `name` is cut to 15 bytes."""
    attributes = packed(
        "IIIIIII16s",
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
        inner,
        0,
        name.encode()[:15],
        size=72,
    )
    return bpf(syscalls.MAP_CREATE, attributes, f"creating map {name}")


def info(descriptor: int) -> MapInfo:
    raw = syscalls.information(descriptor, bytearray(_INFO_SIZE), "reading about a map")
    kind, number, key_size, value_size, max_entries, flags = struct.unpack_from("=IIIIII", raw)
    btf, key_type, value_type = struct.unpack_from("=III", raw, 64)
    name = syscalls.text(raw[24:40])
    return MapInfo(kind, number, key_size, value_size, max_entries, flags, name, btf, key_type, value_type)


def read(descriptor: int, keys: np.dtype[Any], values: np.dtype[Any], max_entries: int) -> tuple[Records, Records]:
    """All entries, in the map's order. What others insert or delete meanwhile may be in it or not. Where they change a
    trie, what lies beside that may be missing: the kernel walks on from where a node was (kernel/bpf/lpm_trie.c,
    trie_get_next_key). Our own tries are read by who writes them.

    1,000,000 entries of 12 and 8 bytes take about 300 ms. Raises KernelError if the map changes faster than it reads.
    """
    token, next_token = bytearray(max(4, keys.itemsize)), bytearray(max(4, keys.itemsize))
    attributes = bytearray(_BATCH.size)
    parts: list[tuple[Records, Records]] = []
    size, total, started = _FIRST_CHUNK, 0, False
    while total <= 2 * max_entries + _CHUNK:
        part = np.empty(size, keys), np.empty(size, values)
        start = address(token) if started else 0
        where = part[0].ctypes.data, part[1].ctypes.data
        _BATCH.pack_into(attributes, 0, start, address(next_token), *where, size, descriptor, 0, 0)
        _, error = attempt(syscalls.MAP_LOOKUP_BATCH, attributes)
        count = struct.unpack_from("=I", attributes, _BATCH_COUNT)[0]
        if error == errno.ENOSPC and size < _LARGEST_CHUNK:  # a hash bucket that holds more than a chunk
            size *= 4
            continue
        if error in (errno.EINVAL, *syscalls.UNSUPPORTED) and not started:
            return read_singly(descriptor, keys, values, max_entries)
        if error not in (0, errno.ENOENT):
            raise refusal(error, "reading a map")
        parts.append((part[0][:count], part[1][:count]))
        total, started, size = total + count, True, max(size, _CHUNK)
        token, next_token = next_token, token
        if error == errno.ENOENT:
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    raise KernelError("reading a map: it changes faster than it can be read")


def read_singly(
    descriptor: int, keys: np.dtype[Any], values: np.dtype[Any], max_entries: int
) -> tuple[Records, Records]:
    """The same key by key, for kernels and kinds of maps without batches; about 3 us an entry."""
    found: list[bytes] = []
    key, following = bytearray(keys.itemsize), bytearray(keys.itemsize)
    start = 0
    while len(found) <= 2 * max_entries:
        _, error = attempt(syscalls.MAP_NEXT_KEY, _attributes(descriptor, start, address(following)))
        if error == errno.ENOENT:
            every = np.frombuffer(b"".join(found), keys)
            there, rows = lookup(descriptor, every, values)
            return every[there], rows[there]
        if error:
            raise refusal(error, "reading a map")
        key[:] = following
        start = address(key)
        found.append(bytes(key))
    raise KernelError("reading a map: it changes faster than it can be read")


def lookup(descriptor: int, keys: Records, values: np.dtype[Any]) -> tuple[NDArray[np.bool_], Records]:
    """For each key whether it is there, and its value (zeros if not); 1 to 2 us a key."""
    keys = np.ascontiguousarray(keys)
    found, rows = np.zeros(len(keys), np.bool_), np.zeros(len(keys), values)
    attributes = bytearray(_ELEMENT.size)
    call = prepared(syscalls.MAP_LOOKUP, attributes)
    key, row = keys.ctypes.data, rows.ctypes.data
    for index in range(len(keys)):
        _ELEMENT.pack_into(attributes, 0, descriptor, 0, key, row, 0)
        key, row = key + keys.itemsize, row + rows.itemsize
        _, error = call()
        if error not in (0, errno.ENOENT):
            raise refusal(error, "looking a key up")
        found[index] = not error
    return found, rows


def freeze(descriptor: int) -> None:
    """Nobody writes the map by a system call any more."""
    bpf(syscalls.MAP_FREEZE, packed("I", descriptor), "freezing a map")


def is_empty(descriptor: int, key_size: int) -> bool:
    following = bytearray(key_size)
    _, error = attempt(syscalls.MAP_NEXT_KEY, _attributes(descriptor, 0, address(following)))
    if error not in (0, errno.ENOENT):
        raise refusal(error, "reading a map")
    return error == errno.ENOENT


def update(descriptor: int, keys: Records, values: Records) -> int:
    """Insert or overwrite. Returns 0, or the errno of the entry that the kernel refused; those before it are in."""
    keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
    done, error = _batch(syscalls.MAP_UPDATE_BATCH, descriptor, keys, values)
    if error not in (errno.EINVAL, *syscalls.UNSUPPORTED):
        return error
    return update_singly(descriptor, keys[done:], values[done:])


def update_batch(descriptor: int, keys: Records, values: Records) -> int:
    """The same by a batch or not at all."""
    return _batch(syscalls.MAP_UPDATE_BATCH, descriptor, np.ascontiguousarray(keys), np.ascontiguousarray(values))[1]


def update_singly(descriptor: int, keys: Records, values: Records) -> int:
    """The same, a system call an entry."""
    return _singly(syscalls.MAP_UPDATE, descriptor, np.ascontiguousarray(keys), np.ascontiguousarray(values))


def delete(descriptor: int, keys: Records) -> int:
    """Delete; what is not there is passed over. Returns 0 or an errno."""
    keys = np.ascontiguousarray(keys)
    while len(keys):
        done, error = _batch(syscalls.MAP_DELETE_BATCH, descriptor, keys, None)
        if error in (errno.EINVAL, *syscalls.UNSUPPORTED):
            return _singly(syscalls.MAP_DELETE, descriptor, keys[done:], None)
        if error != errno.ENOENT:
            return error
        keys = keys[done + 1 :]
    return 0


def _attributes(descriptor: int, key: int, value: int) -> bytearray:
    return bytearray(_ELEMENT.pack(descriptor, 0, key, value, 0))


def _batch(command: int, descriptor: int, keys: Records, values: Records | None) -> tuple[int, int]:
    """How many were done, and the errno of the first that was not."""
    if not len(keys):
        return 0, 0
    attributes = bytearray(_BATCH.size)
    rows = 0 if values is None else values.ctypes.data
    _BATCH.pack_into(attributes, 0, 0, 0, keys.ctypes.data, rows, len(keys), descriptor, 0, 0)
    _, error = attempt(command, attributes)
    done = struct.unpack_from("=I", attributes, _BATCH_COUNT)[0]
    if error and done == len(keys):  # the command is unknown and wrote nothing back
        return 0, error
    return done, error


def _singly(command: int, descriptor: int, keys: Records, values: Records | None) -> int:
    """For maps and kernels without batches. The errno of the first entry that was refused, else 0."""
    attributes = bytearray(_ELEMENT.size)
    call = prepared(command, attributes)
    for index in range(len(keys)):
        key = keys.ctypes.data + index * keys.itemsize
        row = 0 if values is None else values.ctypes.data + index * values.itemsize
        _ELEMENT.pack_into(attributes, 0, descriptor, 0, key, row, 0)
        _, error = call()
        if error and not (error == errno.ENOENT and values is None):
            return error
    return 0
