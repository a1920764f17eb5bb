"""Tampering with maps, links and pins by another process, seen as it happens."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reconciler.bpf import maps, programs, syscalls
from reconciler.errors import FeatureMissing, KernelError
from reconciler.observe import tracepoints
from reconciler.observe.drift import Command, DriftTracer, Tamper, Target
from reconciler.observe.pins import PinEvent, PinWatch, What
from reconciler.observe.process import describe

DEADLINE_S = 5.0
U32 = np.dtype(np.uint32)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of bpffs."""
    path = Path(f"/sys/fs/bpf/pt-{os.getpid()}-drift")
    path.mkdir()
    yield path
    for pin in path.iterdir():
        pin.unlink()
    path.rmdir()


@pytest.fixture
def guarded(folder: Path) -> Iterator[int]:
    """A pinned hash map of ten rows."""
    descriptor = maps.create(maps.HASH, 4, 4, 100, name="pt_guarded")
    syscalls.pin(descriptor, str(folder / "guarded"))
    assert not maps.update(descriptor, np.arange(10, dtype=U32), np.arange(10, dtype=U32))
    yield descriptor
    os.close(descriptor)


# What the other process has at hand: the map, and calls with which it changes one row or several.
PRELUDE = """
import sys
import numpy as np
from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.syscalls import attempt, packed

folder = sys.argv[1]

def keys(*numbers):
    return np.array(numbers, np.uint32)

def one(command, key, value=0):
    row = keys(key), keys(value)
    return attempt(command, packed("IIQQQ", guarded, 0, row[0].ctypes.data, row[1].ctypes.data, 0))[1]

def delete_batch(*numbers):
    rows = keys(*numbers)
    batch = packed("QQQQIIQQ", 0, 0, rows.ctypes.data, 0, len(rows), guarded, 0, 0)
    return attempt(syscalls.MAP_DELETE_BATCH, batch)[1]

guarded = syscalls.get(folder + "/guarded")
"""


def other_process(folder: Path, program: str) -> int:
    """Runs Python in a process of its own; returns its number once it has ended."""
    child = subprocess.Popen([sys.executable, "-c", PRELUDE + program, str(folder)])
    assert child.wait(30) == 0
    return child.pid


def tampers(tracer: DriftTracer, count: int = 1) -> list[Tamper]:
    """Of our own children: links are watched whoever has them, and other tests take theirs off."""
    seen: list[Tamper] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(seen) < count:
        assert select.select([tracer], [], [], max(0.0, deadline - time.monotonic()))[0], f"only {seen}"
        seen += [one for one in tracer.read() if one.parent == os.getpid()]
    return seen


@pytest.fixture
def tracer(guarded: int) -> Iterator[DriftTracer]:
    watching = DriftTracer({maps.info(guarded).id: 4})
    yield watching
    watching.close()


def test_an_update_names_its_writer_the_map_and_the_key(tracer: DriftTracer, guarded: int, folder: Path) -> None:
    pid = other_process(folder, "assert not one(syscalls.MAP_UPDATE, 7, 1)")
    (tamper,) = tampers(tracer)
    assert (tamper.tgid, tamper.pid, tamper.parent, tamper.uid) == (pid, pid, os.getpid(), 0)
    assert tamper.comm.startswith("python")
    assert (tamper.command, tamper.target) == (Command.MAP_UPDATE_ELEM, Target.MAP)
    assert (tamper.target_id, tamper.key, tamper.count) == (maps.info(guarded).id, b"\7\0\0\0", 1)


def test_a_batch_reports_how_many_rows_and_the_first_key(tracer: DriftTracer, folder: Path) -> None:
    other_process(folder, "maps.update(guarded, keys(3, 4, 5), keys(0, 0, 0)); maps.delete(guarded, keys(8, 9))")
    update, delete = tampers(tracer, 2)
    assert (update.command, update.count, update.key) == (Command.MAP_UPDATE_BATCH, 3, b"\3\0\0\0")
    assert (delete.command, delete.count, delete.key) == (Command.MAP_DELETE_BATCH, 2, b"\x08\0\0\0")


def test_a_batch_that_fails_half_way_reports_what_it_changed(tracer: DriftTracer, folder: Path) -> None:
    other_process(folder, "assert delete_batch(1, 2, 77, 3)")
    (tamper,) = tampers(tracer)
    assert (tamper.command, tamper.count) == (Command.MAP_DELETE_BATCH, 2)


def test_a_tool_as_an_operator_has_it_is_seen(tracer: DriftTracer, folder: Path) -> None:
    command = ["bpftool", "map", "delete", "pinned", str(folder / "guarded"), *["key", "5", "0", "0", "0"]]
    subprocess.run(command, check=True)
    (tamper,) = tampers(tracer)
    process = describe(tamper.tgid, comm=tamper.comm, uid=tamper.uid, parent=tamper.parent)
    assert (tamper.command.what, process.command) == ("deleted", "bpftool")
    assert process.parents[0].endswith(f"({os.getpid()})")


def test_freezing_is_seen_and_what_then_fails_is_not(tracer: DriftTracer, folder: Path) -> None:
    name = str(folder / "guarded")
    subprocess.run(["bpftool", "map", "freeze", "pinned", name], check=True)
    other_process(folder, "assert one(syscalls.MAP_DELETE, 1)")
    other_process(folder, "assert delete_batch(1, 2)")
    assert [tamper.command for tamper in tampers(tracer)] == [Command.MAP_FREEZE]


def test_our_own_writes_are_no_tampering(tracer: DriftTracer, guarded: int, folder: Path) -> None:
    maps.update(guarded, np.arange(3, dtype=U32), np.arange(3, dtype=U32))
    other_process(folder, "assert not delete_batch(9)")
    assert [tamper.command for tamper in tampers(tracer)] == [Command.MAP_DELETE_BATCH]


def test_maps_can_be_watched_and_left_alone_while_it_runs(tracer: DriftTracer, guarded: int, folder: Path) -> None:
    tracer.watch({})
    other_process(folder, "assert not delete_batch(1)")
    tracer.watch({maps.info(guarded).id: 4})
    other_process(folder, "assert not delete_batch(2)")
    assert [tamper.key for tamper in tampers(tracer)] == [b"\2\0\0\0"]


def test_more_maps_than_there_is_room_for_is_an_error(tracer: DriftTracer) -> None:
    with pytest.raises(KernelError, match="watching 262145 maps"):
        tracer.watch(dict.fromkeys(range(1, 262146), 4))


def test_a_link_that_is_swapped_or_detached_is_seen(tracer: DriftTracer, veth: str, folder: Path) -> None:
    harmless = programs.load_program(programs.SCHED_CLS, [programs.move(0, -1), programs.leave()], name="pt_harmless")
    link = programs.attach_tcx(harmless, socket.if_nametoindex(veth), programs.TCX_INGRESS)
    syscalls.pin(link, str(folder / "link"))
    number = programs.link_info(link).id
    other_process(
        folder,
        "link = syscalls.get(folder + '/link')\n"
        "drops = programs.load_program(programs.SCHED_CLS, [programs.move(0, 2), programs.leave()])\n"
        "programs.replace_program(link, drops); programs.detach(link)",
    )
    swapped, detached = tampers(tracer, 2)
    assert (swapped.command, swapped.target, swapped.target_id) == (Command.LINK_UPDATE, Target.LINK, number)
    assert (detached.command, detached.target_id) == (Command.LINK_DETACH, number)
    os.close(link)
    os.close(harmless)


def test_closing_detaches(guarded: int, folder: Path) -> None:
    others = _programs_named("bpf_ends")
    watching = DriftTracer({maps.info(guarded).id: 4})
    attached = _programs_named("bpf_ends") - others  # and perhaps one of a daemon that began beside this test
    assert attached
    watching.close()
    watching.close()
    deadline = time.monotonic() + DEADLINE_S
    while attached <= _programs_named("bpf_ends"):
        assert time.monotonic() < deadline
    with pytest.raises(KernelError, match="closed"):
        watching.read()


def test_without_the_capabilities_the_error_says_that_they_are_missing() -> None:
    program = (
        "from reconciler.errors import PermissionMissing; from reconciler.observe.drift import DriftTracer\n"
        "try: DriftTracer({})\n"
        "except PermissionMissing as error: print(error.exit_code)"
    )
    command = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "11\n"


def test_a_tracepoint_that_the_kernel_lacks_is_a_missing_feature() -> None:
    with pytest.raises(FeatureMissing, match="no tracepoint syscalls/sys_enter_nothing"):
        tracepoints.attach("syscalls", "sys_enter_nothing", 0)


def test_pins_on_bpffs_that_vanish_are_told(guarded: int, folder: Path) -> None:
    watch = PinWatch([folder])
    subprocess.run(["rm", str(folder / "guarded")], check=True)
    syscalls.pin(guarded, str(folder / "guarded"))
    told = watch.read()
    watch.close()
    assert told[0] == PinEvent(folder, "guarded", What.DELETED)
    assert told[-1] == PinEvent(folder, "guarded", What.CREATED)


def _programs_named(name: str) -> set[int]:
    """By id, of the whole machine."""
    found = set()
    for number in syscalls.ids(syscalls.PROGRAM_NEXT_ID):
        try:
            descriptor = syscalls.by_id(syscalls.PROGRAM_BY_ID, number, "")
        except KernelError:
            continue
        with syscalls.held(descriptor):
            if programs.info(descriptor).name == name:
                found.add(number)
    return found


def test_a_process_that_has_ended_is_known_with_its_command_and_its_parents(tracer: DriftTracer) -> None:
    outer = subprocess.Popen(
        ["bash", "-c", "ip route show 192.0.2.0/24 > /dev/null & echo $!; wait"], stdout=subprocess.PIPE
    )
    assert outer.stdout
    with outer.stdout as told:
        inner = int(told.readline())
    outer.wait()
    process = describe(inner, ended=tracer.ended)
    assert process.ended
    assert (process.command, process.user) == ("ip route show 192.0.2.0/24", "root")
    assert process.parents[0] == f"bash({outer.pid})"
    assert process.parents[1].endswith(f"({os.getpid()})")
