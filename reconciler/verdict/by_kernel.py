"""The engine that asks the kernel: the rows are loaded into the real endpoint programs, which are run on packets.

It has a pin root of its own, so nothing on this host sees those rows, and no packet leaves a test run. Needs root.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reconciler import shipped
from reconciler.bpf import bpffs, btf, syscalls, test_runs
from reconciler.bpf.pins import program_path
from reconciler.bpf.ringbuf import RingBuffer
from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.engine.table import Table
from reconciler.engine.transaction import write
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.endpoints import EndpointsTable
from reconciler.kernel.generation import Generation
from reconciler.kernel.ipcache import IpcacheTable
from reconciler.kernel.policy import PolicyTable
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE, POLICY_KEY, POLICY_VALUE
from reconciler.observe.flow import REASONS, Reason
from reconciler.verdict.by_rows import by_host
from reconciler.verdict.case import Question, Side, Sides, Standing, Word
from reconciler.verdict.frames import ICMP, Opening, frames
from reconciler.verdict.load import Load, Place, loads, places, tables
from reconciler.verdict.world import World

_PREFIX = "plumb-verdict-"  # of pin roots; the process follows, and which of its engines it is
_engines = count()
_MAP_SIZES = {"conntrack4": 16384, "conntrack6": 16384}  # nobody needs a flow twice

_FROM_WORKLOAD, _TO_WORKLOAD = "from_workload", "to_workload"
_FLOWS = ("conntrack4", "conntrack6", "denials4", "denials6")
_ALL_EVENTS = 3
_LOOPBACK = 1  # its index, in every namespace
_CONTEXT = 192  # at least struct __sk_buff
_AT_ONCE = 8192  # runs whose events the ring holds
_FIRST_PORT, _LAST_PORT = 49152, 65535  # RFC 6335: where sources take theirs from
_WORDS = {
    Reason.ALLOWED: Word.ALLOW,
    Reason.AUDITED: Word.ALLOW,
    Reason.POLICY_DEFAULT: Word.DENY,
    Reason.POLICY_DENY: Word.DENY,
    Reason.NO_PROXY: Word.REDIRECT,
}


class _Run(NamedTuple):
    """One side of a question. `from_host`: the packet comes from this host itself, not from a device."""

    program: str
    version: int
    from_host: bool
    opening: Opening

    @property
    def alike(self) -> tuple[str, int, bool, bool]:
        """What can be run in one go; of ICMP nothing can, as a flow is known without its type."""
        return self.program, self.version, self.from_host, self.opening.protocol in ICMP


class KernelEngine:
    """Close it: what it pinned is gone then."""

    def __init__(self) -> None:
        _sweep()
        self.pin_root = bpffs.MOUNT_POINT / f"{_PREFIX}{os.getpid()}-{next(_engines)}"
        self._folder = shipped.bpf_objects()
        self._event = btf.of_file(self._folder / "flow_layout.bpf.o").struct("event")
        self._contexts = {from_host: self._context(from_host=from_host) for from_host in (False, True)}
        self._records: list[bytes] = []
        with ExitStack() as opening:
            opening.callback(shutil.rmtree, self.pin_root, ignore_errors=True)
            self._programs = self._load(opening)
            self._maps = PinnedMaps(self.pin_root)
            self._ring = RingBuffer(self._maps.open("events").descriptor, self._records.append)
            opening.callback(self._ring.close)
            generation = Generation(self._maps)
            opening.callback(generation.finish)
            generation.set_events(_ALL_EVENTS)
            self._held = opening.pop_all()
        made = EndpointsTable(self._maps), IpcacheTable(self._maps, generation), PolicyTable(self._maps, generation)
        self._tables: dict[str, Table] = {table.name: table for table in made}
        self._live: dict[str, Rows] = {
            "endpoints": DictRows({}),
            "ipcache": Columns(np.empty(0, IPCACHE_KEY), np.empty(0, IPCACHE_VALUE)),
            "policy": Columns(np.empty(0, POLICY_KEY), np.empty(0, POLICY_VALUE)),
        }

    def close(self) -> None:
        """Idempotent."""
        self._held.close()

    def _load(self, opening: ExitStack) -> dict[str, int]:
        """Descriptors of the programs by name."""
        datapath = Datapath(self.pin_root, map_sizes=_MAP_SIZES)
        datapath.load()
        found = {}
        for name in (_FROM_WORKLOAD, _TO_WORKLOAD):
            found[name] = syscalls.get(program_path(self.pin_root, name, datapath.program_rows()[name].digest))
            opening.callback(os.close, found[name])
        return found

    def judge(self, asked: Sequence[tuple[World, Sequence[Question]]]) -> list[list[Sides]]:
        answers: list[list[Sides]] = [[] for _ in asked]
        worlds = [world for world, _ in asked]
        for load in loads(worlds):
            mine = [asked[index] for index in load.worlds]
            for index, found in zip(load.worlds, self._judge(load, mine), strict=True):
                answers[index] = found
        return answers

    def _judge(self, load: Load, asked: Sequence[tuple[World, Sequence[Question]]]) -> Iterator[list[Sides]]:
        worlds = [world for world, _ in asked]
        placed = places(worlds)
        self._become(tables(load, worlds, placed))
        source_port = _unused_port(question.port for _, questions in asked for question in questions)
        wanted = [
            (_runs(world, of_world, question, source_port), world, question)
            for (world, questions), of_world in zip(asked, placed, strict=True)
            for question in questions
        ]
        said = self._run_all({run for runs, _, _ in wanted for run in runs if run is not None})
        sides = iter([_sides(runs, world, question, said) for runs, world, question in wanted])
        for _, questions in asked:
            yield [next(sides) for _ in questions]

    def _become(self, wanted: Mapping[str, Rows]) -> None:
        """One transaction, as the host writes it; the flows of the last load are forgotten with it."""
        deltas = [diff_rows(name, rows, self._live[name], complete=True) for name, rows in wanted.items()]
        write([delta for delta in deltas if delta], self._tables)
        self._live = dict(wanted)
        self._forget_flows()

    def _run_all(self, runs: set[_Run]) -> dict[_Run, Side]:
        said: dict[_Run, Side] = {}
        for (program, _, from_host, icmp), group in groupby(sorted(runs, key=_order), key=lambda run: run.alike):
            every = list(group)
            step = 1 if icmp else _AT_ONCE
            for start in range(0, len(every), step):
                part = every[start : start + step]
                packets = frames([run.opening for run in part])
                test_runs.run_each(self._programs[program], packets, self._contexts[from_host])
                said |= zip(part, self._said(len(part)), strict=True)
                if icmp:
                    self._forget_flows()
        return said

    def _said(self, packets: int) -> list[Side]:
        """What the programs told of the last packets, in their order."""
        self._records.clear()
        self._ring.consume()
        events = np.frombuffer(b"".join(self._records), self._event)
        if len(events) != packets:
            raise KernelError(f"{packets} packets were judged and {len(events)} verdicts told")
        reasons, cookies = events["reason"].tolist(), events["cookie"].tolist()
        if unknown := set(reasons) - _WORDS.keys():
            names = ", ".join(REASONS[number].word for number in unknown)
            raise KernelError(f"a packet was dropped before policy was asked: {names}")
        told = [(REASONS[number], cookie) for number, cookie in zip(reasons, cookies, strict=True)]
        return [Side(_WORDS[reason], cookie, reason is Reason.AUDITED) for reason, cookie in told]

    def _forget_flows(self) -> None:
        for name in _FLOWS:
            flows = self._maps.open(name)
            flows.delete(flows.read()[0])

    def _context(self, *, from_host: bool) -> bytes:
        fields = btf.of_file(self._folder / "endpoint.bpf.o").struct("__sk_buff").fields
        assert fields is not None
        context = bytearray(_CONTEXT)
        struct.pack_into("=I", context, fields["ifindex"][1], _LOOPBACK)
        struct.pack_into("=I", context, fields["ingress_ifindex"][1], 0 if from_host else _LOOPBACK)
        return bytes(context)


def _sweep() -> None:
    """What engines left behind whose process was killed."""
    for root in bpffs.MOUNT_POINT.glob(f"{_PREFIX}*"):
        if not Path("/proc", root.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            shutil.rmtree(root, ignore_errors=True)


def _runs(
    world: World, placed: Mapping[str, Place], question: Question, source_port: int
) -> tuple[_Run | None, _Run | None]:
    """For the egress side and for the ingress side, where they are policed."""
    source, destination = placed[question.source], placed[question.destination]
    version = _version(question, source, destination)

    def run(program: str, one: Place, other: Place) -> _Run:
        ends = (one.own[version], other.far[version])
        outbound = program == _FROM_WORKLOAD
        opening = Opening(*(ends if outbound else ends[::-1]), question.protocol, source_port, question.port)
        from_host = not outbound and world.ends[question.source].standing is Standing.HOST
        return _Run(program, version, from_host, opening)

    return (
        run(_FROM_WORKLOAD, source, destination) if source.own else None,
        run(_TO_WORKLOAD, destination, source) if destination.own else None,
    )


def _version(question: Question, source: Place, destination: Place) -> int:
    """IPv4 where both have it, but for ICMPv6."""
    both = source.far.keys() & destination.far.keys()
    if question.protocol == ICMP[1] and 6 in both:
        return 6
    return min(both, default=0)


def _sides(runs: tuple[_Run | None, _Run | None], world: World, question: Question, said: Mapping[_Run, Side]) -> Sides:
    egress, ingress = runs
    return Sides(
        said[egress] if egress else by_host(world, question, egress=True),
        said[ingress] if ingress else by_host(world, question, egress=False),
    )


def _unused_port(asked: Iterator[int]) -> int:
    """A source port that is nobody's destination: then no flow is the answer to another."""
    used = set(asked)
    return next((port for port in range(_FIRST_PORT, _LAST_PORT + 1) if port not in used), 0)


def _order(run: _Run) -> tuple[object, ...]:
    return run.alike
