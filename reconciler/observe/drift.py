"""Who changes our maps, links and hooks: every such bpf(2) call of another process, as it succeeds.

`bpf/trace/drift.bpf.c` sits on the system call's tracepoints. The price is 50 to 150 ns for every system call on the
host while it is attached. It also notes who each process was when it ends, for a tool has often ended before anybody
looks. It cannot see writes through mmap or by BPF programs, nor pins that vanish (pins.py can).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.ringbuf import RingBuffer
from reconciler.datapath.objects import BpfObject
from reconciler.errors import FeatureMissing, KernelError
from reconciler.observe import tracepoints
from reconciler.observe.process import Ended
from reconciler.shipped import bpf_objects

_OBJECT = "drift.bpf.o"
_PROGRAMS = {
    "bpf_begins": ("syscalls", "sys_enter_bpf"),
    "bpf_ends": ("syscalls", "sys_exit_bpf"),
    "process_ends": ("sched", "sched_process_exit"),
}
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
_U32, _U64 = np.dtype(np.uint32), np.dtype(np.uint64)


class Command(IntEnum):
    """enum bpf_cmd, linux/bpf.h."""

    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_ATTACH = 8
    PROG_DETACH = 9
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_UPDATE = 29
    LINK_DETACH = 34

    @property
    def what(self) -> str:
        """For people: deleted, changed, frozen, attached or detached."""
        if "DELETE" in self.name:
            return "deleted"
        return {"MAP_FREEZE": "frozen", "PROG_ATTACH": "attached"}.get(
            self.name, "detached" if "DETACH" in self.name else "changed"
        )


class Target(IntEnum):
    """enum tamper_target, bpf/trace/drift.bpf.c."""

    MAP = 1
    LINK = 2
    HOOK = 3


@dataclass(frozen=True, slots=True)
class Tamper:
    """One call that changed something.

    time_ns      CLOCK_MONOTONIC, when the call returned
    pid, tgid    of the thread and of its process; `parent` is the process that started it
    target_id    id of the map or link; of a hook the device's index, or the caller's descriptor of a cgroup
    attach_type  of a hook, enum bpf_attach_type
    count        rows, of a batch; otherwise 1
    key          as it lies in the map, at most 40 bytes; of a batch the first one, or empty if the kernel chose
    """

    time_ns: int
    pid: int
    tgid: int
    parent: int
    uid: int
    comm: str
    command: Command
    target: Target
    target_id: int
    attach_type: int
    count: int
    key: bytes


class DriftTracer:
    """Watches maps by id, and every change of a link or hook. Loading takes 30 ms.

    watched     map id -> bytes of its key; inner maps of a map of maps count as maps of their own
    self_pid    the process whose writes are no tampering

    Raises FeatureMissing where the kernel lacks BTF, tracepoints or ring buffers, PermissionMissing without CAP_BPF,
    CAP_PERFMON and CAP_SYS_ADMIN.
    """

    def __init__(self, watched: Mapping[int, int], self_pid: int | None = None, *, objects: Path | None = None) -> None:
        self._closing: list[int] = []
        self._received: list[bytes] = []
        self._watched: dict[int, int] = {}
        self._buffer: RingBuffer | None = None
        try:
            self._load((objects or bpf_objects()) / _OBJECT, os.getpid() if self_pid is None else self_pid)
            self.watch(watched)
            for (group, event), program in self._attach:
                self._closing.append(tracepoints.attach(group, event, program))
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable as soon as something was changed."""
        return self._ring().fileno()

    def read(self) -> list[Tamper]:
        """What was changed since the last call, in order; never waits."""
        self._ring().consume()
        records, self._received = self._received, []
        return [_tamper(row) for row in np.frombuffer(b"".join(records), self._layout)]

    def watch(self, watched: Mapping[int, int]) -> None:
        """From now on exactly these maps: id -> bytes of the key. Cheap where little changes.

        Raises KernelError if there are more than 262,144.
        """
        gone = [number for number in self._watched if number not in watched]
        fresh = {number: size for number, size in watched.items() if number not in self._watched}
        error = maps.delete(self._maps["watched"], np.array(gone, np.uint32))
        error = error or maps.update(
            self._maps["watched"], np.array(list(fresh), np.uint32), np.array(list(fresh.values()), np.uint32)
        )
        if error:
            raise syscalls.refusal(error, f"watching {len(watched)} maps")
        self._watched = dict(watched)

    def lost(self) -> int:
        """Changes that happened and did not fit into the buffer since it was made."""
        return int(maps.lookup(self._maps["lost"], np.zeros(1, _U32), _U64)[1][0])

    def ended(self, pid: int) -> Ended | None:
        """Who had this number last, of the latest 4,096 processes that ended."""
        if self._buffer is None:
            return None
        found, rows = maps.lookup(self._maps["ended"], np.array([pid], np.uint32), self._ended)
        if not found[0]:
            return None
        row = rows[0]
        comm, command = syscalls.text(row["comm"].tobytes()), row["command"].tobytes()[: int(row["length"])]
        return Ended(comm, command, int(row["uid"]), int(row["parent"]))

    def close(self) -> None:
        """Detach. Idempotent."""
        if self._buffer:
            self._buffer.close()
            self._buffer = None
        while self._closing:
            os.close(self._closing.pop())

    def _load(self, path: Path, self_pid: int) -> None:
        if not _KERNEL_TYPES.exists():
            raise FeatureMissing(f"this kernel has no BTF ({_KERNEL_TYPES}), which the drift tracer needs")
        with BpfObject(path, Path()) as loading:
            loading.set_option("self_pid", self_pid)
            self._layout, self._ended = loading.btf.struct("tamper"), loading.btf.struct("ended")
            loading.load()
            self._attach = [(event, os.dup(loading.descriptor(name))) for name, event in _PROGRAMS.items()]
            self._closing += [program for _, program in self._attach]
        self._maps = {}
        for number in frozenset().union(*(programs.info(program).maps for _, program in self._attach)):
            descriptor = syscalls.by_id(syscalls.MAP_BY_ID, number, "opening the drift tracer's maps")
            self._closing.append(descriptor)
            self._maps[maps.info(descriptor).name] = descriptor
        self._buffer = RingBuffer(self._maps["tampers"], self._received_one)

    def _received_one(self, record: bytes) -> None:
        self._received.append(record)

    def _ring(self) -> RingBuffer:
        if self._buffer is None:
            raise KernelError("the drift tracer is closed")
        return self._buffer


def _tamper(row: np.void) -> Tamper:
    return Tamper(
        time_ns=int(row["time_ns"]),
        pid=int(row["pid"]),
        tgid=int(row["tgid"]),
        parent=int(row["parent"]),
        uid=int(row["uid"]),
        comm=syscalls.text(row["comm"].tobytes()),
        command=Command(int(row["command"])),
        target=Target(int(row["target"])),
        target_id=int(row["target_id"]),
        attach_type=int(row["attach_type"]),
        count=int(row["count"]),
        key=row["key"].tobytes()[: int(row["key_size"])],
    )
