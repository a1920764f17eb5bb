"""Events and counters of the real datapath, as the daemon reads them."""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reconciler.bpf import clock, programs, syscalls, test_runs
from reconciler.bpf.ringbuf import RingBuffer
from reconciler.datapath.loader import Datapath
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.observe import counters
from reconciler.observe.events import Decoder, shipped_layout
from reconciler.observe.flow import EventType, FlowEvent, Reason

BOTH_MASKS = 3  # bpf/lib/state.h
SK_BUFF = 192  # at least struct __sk_buff
SMALL = {"conntrack4": 1024, "conntrack6": 1024}
MANY = 4000  # packets of a CPU: the ring has room for the events of five
READS_TWO = """
import sys
from reconciler.bpf import syscalls
from reconciler.bpf.ringbuf import RingBuffer
print(RingBuffer(syscalls.get(sys.argv[1]), lambda record: None).consume(2), flush=True)
sys.stdin.read()
"""


class Reader:
    """Events since the last look, decoded; with the time as the programs' clock has it."""

    def __init__(self, opened: PinnedMaps) -> None:
        self._records: list[bytes] = []
        self._buffer = RingBuffer(opened.open("events").descriptor, self._records.append)
        self._decoder = Decoder(shipped_layout(), lambda: 0)
        self.close = self._buffer.close

    def events(self) -> list[FlowEvent]:
        self._records.clear()
        self._buffer.consume()
        return self._decoder.decode(self._records)


@pytest.fixture
def pins() -> Iterator[Path]:
    root = Path(f"/sys/fs/bpf/pt-{os.getpid()}-events")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def loaded(pins: Path) -> Iterator[tuple[PinnedMaps, int]]:
    """The datapath's maps, all events wanted, and its program for what a workload sends."""
    datapath = Datapath(pins, map_sizes=SMALL)
    datapath.load()
    opened = PinnedMaps(pins)
    state = opened.open("state")
    keys, values = state.read()
    values["events"] = BOTH_MASKS
    state.update(keys, values)
    digest = datapath.program_rows()["from_workload"].digest
    with syscalls.held(syscalls.get(str(pins / "programs" / f"from_workload-{digest}"))) as program:
        yield opened, program


def udp4(source: str, destination: str, sport: int, dport: int) -> bytes:
    ethernet = bytes(12) + b"\x08\x00"
    ip = (
        struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0)
        + socket.inet_aton(source)
        + socket.inet_aton(destination)
    )
    return ethernet + ip + struct.pack("!HHHH", sport, dport, 8, 0)


def udp6(source: str, destination: str, sport: int, dport: int) -> bytes:
    ethernet = bytes(12) + b"\x86\xdd"
    ip = struct.pack("!IHBB", 6 << 28, 8, 17, 64)
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return ethernet + ip + ends + struct.pack("!HHHH", sport, dport, 8, 0)


def send_from(cpu: int, program: int) -> None:
    """Packets numbered by their source ports; the destination port is one more than the CPU."""
    os.sched_setaffinity(0, {cpu})  # of this thread
    packets = b"".join(udp4("10.44.0.9", "10.44.0.3", port, 1 + cpu) for port in range(MANY))
    test_runs.run_each(program, np.frombuffer(packets, np.uint8).reshape(MANY, -1), bytes(SK_BUFF))


def test_a_drop_arrives_with_addresses_ports_and_reason(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    records: list[bytes] = []
    buffer = RingBuffer(opened.open("events").descriptor, records.append)
    programs.run(program, udp4("10.44.0.9", "10.44.0.3", 4242, 53))
    programs.run(program, udp6("fd00::9", "fd00::3", 4242, 53))
    assert select.select([buffer], [], [], 5)[0]
    assert buffer.consume() == 2
    buffer.close()
    four, six = Decoder(shipped_layout()).decode(records)
    assert (four.type, four.reason) == (EventType.DROP, Reason.SPOOFED_SOURCE)
    assert (four.family, four.protocol_name, four.length_bytes) == (4, "udp", 42)
    assert (str(four.source), four.source_port) == ("10.44.0.9", 4242)
    assert (str(four.destination), four.destination_port) == ("10.44.0.3", 53)
    assert (str(six.source), str(six.destination), six.destination_port) == ("fd00::9", "fd00::3", 53)


def test_an_event_has_the_time_of_the_kernels_last_tick(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    with closing(Reader(opened)) as reader:
        before_ns = time.monotonic_ns()
        programs.run(program, udp4("10.44.0.9", "10.44.0.3", 4242, 53))
        after_ns = time.monotonic_ns()
        (event,) = reader.events()
    tick_ns = clock.tick_ns()  # to which the lag is known
    assert before_ns - 2 * tick_ns <= event.time_ns + clock.lag_ns() <= after_ns + tick_ns


def test_counters_are_summed_over_all_cpus(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    packet = udp4("10.44.0.9", "10.44.0.3", 4242, 53)
    for cpu in os.sched_getaffinity(0):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        programs.run(program, packet)
        os.sched_setaffinity(0, before)
    read = counters.read(opened.open("counters"))
    count = len(os.sched_getaffinity(0))
    assert read.by_reason[Reason.SPOOFED_SOURCE] == counters.Counter(count, count * len(packet))
    assert read.by_reason[Reason.ALLOWED] == counters.Counter(0, 0)
    assert (read.lost_events, read.new_flows.packets) == (0, 0)


def test_events_that_do_not_fit_are_counted_and_the_next_reader_makes_room(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    packet = udp4("10.44.0.9", "10.44.0.3", 4242, 53)
    room = opened.open("events").info.max_entries // np.dtype("V88").itemsize  # 80 bytes and the buffer's own header
    programs.run(program, packet, repeat=room + 100)
    lost = counters.read(opened.open("counters")).lost_events
    assert lost in range(100, 102)
    with closing(RingBuffer(opened.open("events").descriptor, lambda record: None)) as buffer:
        assert buffer.consume() == room + 100 - lost
        programs.run(program, packet, repeat=100)
        assert buffer.consume() == 100
    assert counters.read(opened.open("counters")).lost_events == lost


def test_a_reader_sleeps_while_nothing_happens_and_is_woken_by_each_event_after(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    with closing(RingBuffer(opened.open("events").descriptor, lambda record: None)) as buffer:
        for _ in range(3):
            assert not select.select([buffer], [], [], 0)[0]
            programs.run(program, udp4("10.44.0.9", "10.44.0.3", 4242, 53))
            assert select.select([buffer], [], [], 5)[0]
            assert buffer.consume() == 1


def test_events_of_two_cpus_at_once_are_all_there_and_those_of_each_in_order(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with closing(Reader(opened)) as reader, ThreadPoolExecutor(len(cpus)) as senders:
        list(senders.map(partial(send_from, program=program), cpus))
        events = reader.events()
    assert len(events) == MANY * len(cpus)
    by_cpu = [[event.source_port for event in events if event.destination_port == 1 + cpu] for cpu in cpus]
    assert by_cpu == [[*range(MANY)]] * len(cpus)


def test_what_a_reader_has_left_that_was_killed_the_next_one_gets(loaded: tuple[PinnedMaps, int]) -> None:
    opened, program = loaded
    for port in range(5):
        programs.run(program, udp4("10.44.0.9", "10.44.0.3", port, 53))
    command = [sys.executable, "-c", READS_TWO, opened.path("events")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == b"2\n"
        killed.kill()
    with closing(Reader(opened)) as reader:
        assert [event.source_port for event in reader.events()] == [2, 3, 4]
