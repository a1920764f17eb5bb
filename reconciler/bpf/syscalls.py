"""bpf(2) and what every caller of it shares: the call, its errors, file descriptors, pins and what they refer to.

Maps are in `maps`, programs and links in `programs`. Attributes are packed as linux/bpf.h lays out `union bpf_attr`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from reconciler.errors import FeatureMissing, KernelError, PermissionMissing

Attributes = bytearray

# asm/unistd_64.h of x86, and asm-generic/unistd.h, which arm64 and riscv64 use.
_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROGRAM_LOAD, OBJECT_PIN, OBJECT_GET = range(8)
TEST_RUN, PROGRAM_NEXT_ID, MAP_NEXT_ID, PROGRAM_BY_ID, MAP_BY_ID, OBJECT_INFO, PROGRAM_QUERY = range(10, 17)
RAW_TRACEPOINT_OPEN, BTF_LOAD = 17, 18
MAP_FREEZE = 22
MAP_LOOKUP_BATCH, MAP_UPDATE_BATCH, MAP_DELETE_BATCH, LINK_CREATE, LINK_UPDATE = 24, 26, 27, 28, 29
LINK_DETACH = 34

_ENOTSUPP = 524  # linux/errno.h: the kernel's own, and it reaches user space from bpf(2)
UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, _ENOTSUPP)
_FORBIDDEN = (errno.EPERM, errno.EACCES)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_number = _SYSCALL_NUMBERS.get(os.uname().machine, -1)  # -1 is answered with ENOSYS


def attempt(command: int, attributes: Attributes) -> tuple[int, int]:
    """The call as it is: its result and errno (0 if it succeeded). The kernel may write into `attributes`."""
    return prepared(command, attributes)()


def prepared(command: int, attributes: Attributes) -> Callable[[], tuple[int, int]]:
    """The same call to be made many times, with what `attributes` then hold; half a microsecond cheaper each."""
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    length = len(attributes)

    def call() -> tuple[int, int]:
        result = _syscall(_number, command, buffer, length)
        return result, ctypes.get_errno() if result < 0 else 0

    return call


def bpf(command: int, attributes: Attributes, doing: str) -> int:
    """The result of a call that must succeed. `doing` is what an error says was tried. Raises `refusal`'s errors."""
    result, error = attempt(command, attributes)
    if error:
        raise refusal(error, doing)
    return result


def refusal(error: int, doing: str) -> KernelError:
    """What an errno means: a missing permission, a missing feature, or an error of the kernel."""
    reason = "not supported" if error == _ENOTSUPP else os.strerror(error)
    kind = KernelError
    if error in _FORBIDDEN:
        kind = PermissionMissing
    elif error in UNSUPPORTED:
        kind = FeatureMissing
    return kind(f"{doing}: {reason}", errno=error)


def packed(format_: str, *values: object, size: int = 0) -> Attributes:
    """Attributes in native byte order without implied padding; zeros up to `size`."""
    attributes = bytearray(struct.pack("=" + format_, *values))
    attributes.extend(bytes(max(0, size - len(attributes))))
    return attributes


def address(buffer: bytes | bytearray | None) -> int:
    """Where a buffer lies, for as long as its owner keeps it; 0 for None."""
    if buffer is None:
        return 0
    if isinstance(buffer, bytearray):
        return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
    return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """Close a file descriptor in the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def pin(descriptor: int, path: str) -> None:
    """Pin an object at `path`, in the place of whatever is pinned there; nobody sees the path without one."""
    fresh = f"{path}__new"
    name = os.fsencode(fresh) + b"\0"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    bpf(OBJECT_PIN, packed("QI", address(name), descriptor), f"pinning {path}")
    os.rename(fresh, path)


def get(path: str) -> int:
    """A new file descriptor of what is pinned at `path`. Raises KernelError with errno ENOENT if nothing is."""
    name = os.fsencode(path) + b"\0"
    return bpf(OBJECT_GET, packed("QII", address(name), 0, 0), f"opening {path}")


def unpin(path: str) -> None:
    """Idempotent."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise refusal(error.errno or 0, f"removing {path}") from error


def information(descriptor: int, into: bytearray, doing: str) -> bytearray:
    """BPF_OBJ_GET_INFO_BY_FD: a prefix of `struct bpf_map_info`, `bpf_prog_info` or `bpf_link_info`, zeros behind it.

    What `into` holds goes in too: pointers and counts of arrays that the kernel is to fill.
    """
    bpf(OBJECT_INFO, packed("IIQ", descriptor, len(into), address(into)), doing)
    return into


def by_id(command: int, number: int, doing: str) -> int:
    """A new file descriptor of the map or program with this id."""
    return bpf(command, packed("III", number, 0, 0), doing)


def each_by_id(command: int, numbers: Iterable[int], doing: str) -> Iterator[int]:
    """The same for many; 2 us each."""
    attributes = packed("III", 0, 0, 0)
    call = prepared(command, attributes)
    for number in numbers:
        struct.pack_into("=I", attributes, 0, number)
        descriptor, error = call()
        if error:
            raise refusal(error, doing)
        yield descriptor


def ids(command: int) -> Iterator[int]:
    """Ids of every map or program that the kernel has, ascending; `command` is MAP_NEXT_ID or PROGRAM_NEXT_ID."""
    number = 0
    while True:
        attributes = packed("III", number, 0, 0)
        result, error = attempt(command, attributes)
        if error == errno.ENOENT:
            return
        if result < 0:
            raise refusal(error, "listing BPF objects")
        number = struct.unpack_from("=I", attributes, 4)[0]
        yield number


def text(field: bytes | bytearray) -> str:
    """A name out of a fixed field, up to its first zero."""
    return bytes(field).split(b"\0", 1)[0].decode(errors="replace")
