"""Tracepoints with a BPF program on them, attached for as long as a descriptor is open.

Their numbers come from tracefs. Where nobody mounted it, it is opened without being mounted anywhere: nothing is left
behind. Sources: tracefs (Documentation/trace/events.rst), perf_event_open(2), fsopen(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.bpf.syscalls import refusal
from reconciler.errors import FeatureMissing, KernelError

_MOUNTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
# linux/perf_event.h
_TYPE_TRACEPOINT, _SAMPLE_RAW, _CLOSE_ON_EXEC = 2, 1 << 10, 8
_SET_PROGRAM, _ENABLE = 0x40042408, 0x2400  # PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_ENABLE
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")  # struct perf_event_attr up to bp_addr: PERF_ATTR_SIZE_VER0
# asm/unistd.h; the calls around fsopen have the same number everywhere.
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CREATE = 6
_CLOSE_ON_EXEC_FS = 1

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def attach(group: str, name: str, program: int) -> int:
    """A descriptor; closing it detaches. Raises FeatureMissing where the kernel has no such tracepoint or no tracing,
    PermissionMissing without CAP_PERFMON (and CAP_SYS_ADMIN where tracefs is not mounted).
    """
    attributes = _ATTRIBUTES.pack(
        _TYPE_TRACEPOINT, _ATTRIBUTES.size, _number(group, name), 1, _SAMPLE_RAW, 0, 0, 1, 0, 0
    )
    doing = f"attaching to the tracepoint {group}/{name}"
    machine = os.uname().machine
    if machine not in _PERF_EVENT_OPEN:
        raise FeatureMissing(f"perf_event_open(2) is not known on {machine}")
    event = _called(doing, _PERF_EVENT_OPEN[machine], attributes, -1, 0, -1, _CLOSE_ON_EXEC)
    try:
        fcntl.ioctl(event, _SET_PROGRAM, program)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError as error:
        os.close(event)
        raise refusal(error.errno or 0, doing) from error
    return event


def _number(group: str, name: str) -> int:
    with _tracefs() as directory:
        try:
            file = os.open(f"events/{group}/{name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            raise FeatureMissing(f"this kernel has no tracepoint {group}/{name}") from None
        except OSError as error:
            raise refusal(error.errno or 0, f"reading the tracepoint {group}/{name}") from error
        with open(file, "rb") as opened:
            return int(opened.read())


@contextmanager
def _tracefs() -> Iterator[int]:
    """A descriptor of its top directory."""
    mounted = next((path for path in _MOUNTS if (path / "events").is_dir()), None)
    directory = _open(mounted) if mounted else _unmounted()
    try:
        yield directory
    finally:
        os.close(directory)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise refusal(error.errno or 0, f"opening {path}") from error


def _unmounted() -> int:
    doing = "opening tracefs"
    try:
        context = _called(doing, _FSOPEN, b"tracefs", _CLOSE_ON_EXEC_FS)
    except KernelError as error:
        if error.errno == errno.ENODEV:
            raise FeatureMissing("this kernel was built without tracefs") from error
        raise
    try:
        _called(doing, _FSCONFIG, context, _FSCONFIG_CREATE, None, None, 0)
        return _called(doing, _FSMOUNT, context, _CLOSE_ON_EXEC_FS, 0)
    finally:
        os.close(context)


def _called(doing: str, number: int, *arguments: int | bytes | None) -> int:
    result = int(_syscall(number, *arguments))
    if result < 0:
        raise refusal(ctypes.get_errno(), doing)
    return result
