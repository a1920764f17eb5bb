"""CPU nanoseconds a packet of a whole path: received from a workload, judged, forwarded, arrived at the other workload.

Frames go into the receive path of a device as if it had received them (BPF_F_TEST_XDP_LIVE_FRAMES), and end in a
program at the other workload's device. The same wires without us, and with nftables instead of us, are the baselines.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reconciler.bpf import maps, programs, syscalls
from reconciler.bpf.syscalls import address, bpf, packed
from reconciler.kernel import netns
from reconciler.model.datapath import GATEWAY_MAC
from tests.bench import packets
from tests.bench.again import Bench, Flows, bench, options_for
from tests.bench.bed import BPFFS, PORT, PREFIX, A, B, Bed, Side, Wires, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median

ROUNDS = 21
FRAMES = 50_000
_FIRST_PORT = 20_000
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_BATCH = 64

_RULES = f"""
table ip filter {{
    map allowed {{
        type ipv4_addr . ipv4_addr . inet_service : verdict
        elements = {{ {A.address4} . {B.address4} . {PORT} : accept }}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip saddr . ip daddr . tcp dport vmap @allowed
    }}
}}
"""


@dataclass(slots=True)
class Way:
    """From A to B by what the wires have on them."""

    name: str
    wires: Wires
    frames: Frames
    times: list[float] = field(default_factory=list)


class Frames:
    """Frames of one packet into one device."""

    def __init__(self, tool: Bench, wires: Wires, sender: Side, packet: bytes, flows: Flows | None = None) -> None:
        self._program = tool.object("again", options_for(packet, flows)).descriptor("receive")
        self._packet = packet
        self._wires = wires
        self._ifindex = wires.index(sender)

    def send(self, count: int) -> None:
        """Returns when all have gone their way."""
        context = struct.pack("=6I", 0, len(self._packet), 0, self._ifindex, 0, 0)  # struct xdp_md
        attributes = packed(
            "IIIIQQIIIIQQIII",
            *(self._program, 0, len(self._packet), 0, address(self._packet), 0, count, 0),
            *(len(context), 0, address(context), 0, _LIVE_FRAMES, 0, _BATCH),
        )
        with netns.inside(self._wires.path):
            bpf(syscalls.TEST_RUN, attributes, "sending frames")


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        sink = tool.object("again", {}).descriptor("sink")
        ours, plain, tables = Bed("path"), Wires("plain"), Wires("nftables")
        for wires in (ours, plain, tables):
            stack.enter_context(made(wires))
            stack.enter_context(ending(sink, wires.inside(B), "eth0"))
        ours.attach()
        with netns.inside(tables.path):
            subprocess.run(["nft", "-f", "-"], input=_RULES, text=True, check=True)
        stack.enter_context(on_one_cpu())
        ways = [
            _way(tool, "forwarded", ours),
            _way(tool, "plain_routing", plain),
            _way(tool, "nftables", tables),
        ]
        for _ in range(ROUNDS):
            for way in ways:
                way.times.append(arrive(tool, way, FRAMES))
    found = {way.name: median(way.times) for way in ways}
    yield Figure("path.plain_routing", found["plain_routing"], "ns")
    yield Figure("path.nftables", found["nftables"], "ns", found["plain_routing"])
    yield Figure("path.forwarded", found["forwarded"], "ns", found["plain_routing"])
    yield Figure("path.forwarded_to_nftables", found["forwarded"] / found["nftables"], "times")


def _way(tool: Bench, name: str, wires: Wires) -> Way:
    there = packets.tcp(A.address4, B.address4, _FIRST_PORT, PORT, sender=A.mac, receiver=GATEWAY_MAC)
    back = packets.tcp(B.address4, A.address4, PORT, _FIRST_PORT, sender=B.mac, receiver=GATEWAY_MAC)
    frames = Frames(tool, wires, A, there)
    frames.send(10)
    Frames(tool, wires, B, back).send(10)
    return Way(name, wires, frames)


def arrive(tool: Bench, way: Way, frames: int) -> float:
    """CPU nanoseconds a frame. Raises RuntimeError if frames were lost on the way."""
    before, began = _arrived(tool), _cpu_ns()
    way.frames.send(frames)
    spent, arrived = _cpu_ns() - began, _arrived(tool) - before
    if arrived < frames:  # more: neighbour discovery of the devices themselves
        raise RuntimeError(f"{way.name}: {arrived} of {frames} frames arrived")
    return spent / frames


def _arrived(tool: Bench) -> int:
    _, values = maps.lookup(tool.map("arrived"), np.zeros(1, np.uint32), np.dtype(np.uint64))
    return int(values[0])


def _cpu_ns() -> int:
    """Of this thread, and of the kernel thread that does what softirqs leave over."""
    (cpu,) = os.sched_getaffinity(0)
    return time.thread_time_ns() + int(_softirq_thread(cpu).read_text().split()[0])


def _softirq_thread(cpu: int) -> Path:
    names = (path for path in Path("/proc").glob("[0-9]*/comm") if path.read_text() == f"ksoftirqd/{cpu}\n")
    return next(names).with_name("schedstat")


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """This thread stays on the last of its CPUs."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def ending(program: int, namespace: str, device: str) -> Iterator[None]:
    """What arrives at a device in a namespace ends in this program."""
    with netns.inside(namespace):
        link = programs.attach_tcx(program, socket.if_nametoindex(device), programs.TCX_INGRESS)
    try:
        yield
    finally:
        os.close(link)
