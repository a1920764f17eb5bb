"""10,000 Services with 10 backends each: compiled, planned, written, and what a change of one of them costs.

`plan` is compiling and comparing with every live row; `apply` writes, flips and reads the rows again that it touched;
all of it in CPU time, as each keeps one core busy (waiting for packets to have passed comes on top: some milliseconds).
As with every commit, all origins are new when one changed. `maglev`: slots that change hands, besides its own, when one
backend of 100 goes, and the largest share of a backend over the mean.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

import numpy as np

from reconciler.bpf import syscalls
from reconciler.bpf.syscalls import held
from reconciler.compile.services import Balancing, ServiceMemory, services
from reconciler.daemon.memory import settle_memory
from reconciler.datapath.loader import Datapath
from reconciler.engine.change import Delta
from reconciler.engine.diff import diff_rows
from reconciler.engine.table import Table
from reconciler.engine.transaction import unmet, write
from reconciler.kernel.backends import BackendsTable
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.frontends import FrontendsTable
from reconciler.kernel.generation import Generation
from reconciler.kernel.service_tables import pool
from reconciler.kernel.services import ServicesTable
from reconciler.model.cluster import Cluster, Node, Services
from reconciler.model.facts import Facts
from reconciler.model.maglev import tables
from reconciler.model.origin import Origin
from reconciler.model.service import EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort
from reconciler.model.snapshot import Snapshot
from tests.bench.bed import BPFFS, PREFIX
from tests.bench.figures import Figure, median

COUNT, EACH = 10_000, 10
ROUNDS = 5
POOL = 100
NODE = "alpha"
_FIRST_SERVICE, _FIRST_BACKEND = int(IPv4Address("10.96.0.1")), int(IPv4Address("11.0.0.1"))
_MAPS = ("frontends4", "services", "service_tables", "backends")

T = TypeVar("T")


def measure() -> Iterator[Figure]:
    root = BPFFS / f"{PREFIX}-services"
    try:
        Datapath(root).load()
        yield from _services(Kernel(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    yield from _maglev()


class Kernel:
    """The tables over maps of their own."""

    def __init__(self, root: Path) -> None:
        self.maps = PinnedMaps(root)
        self.generation = Generation(self.maps)
        every = (BackendsTable, ServicesTable, FrontendsTable)
        made: list[Table] = [kind(self.maps, self.generation) for kind in every]
        self.tables: Mapping[str, Table] = {table.name: table for table in made}

    def compare(self, wanted: Balancing) -> list[Delta]:
        rows = wanted.tables()
        found = (diff_rows(name, rows[name], table.live(), complete=True) for name, table in self.tables.items())
        return [delta for delta in found if delta]

    def apply(self, deltas: list[Delta]) -> None:
        write(deltas, self.tables)
        assert not unmet(deltas, self.tables)

    def megabytes(self) -> float:
        """Of the maps and all tables in them, as the kernel counts it."""
        total = sum(_memlock(self.maps.open(name).descriptor) for name in _MAPS)
        for number in set(self.maps.open("service_tables").read()[1].tolist()):
            with held(syscalls.by_id(syscalls.MAP_BY_ID, number, "opening a table")) as table:
                total += _memlock(table)
        return total / 1e6


def _services(kernel: Kernel) -> Iterator[Figure]:
    name = f"services.{COUNT}"
    facts, memory = Facts(NODE, {}, {}, frozenset()), ServiceMemory()
    settle_memory()
    before, snapshot = _resident(), _snapshot()
    parsed = _resident()
    compiled, wanted = _timed(lambda: services(snapshot, facts, memory))
    compared, deltas = _timed(lambda: kernel.compare(wanted))
    applied, _ = _timed(lambda: kernel.apply(deltas))
    yield Figure(f"{name}.cold.compile", compiled, "CPU ms")
    yield Figure(f"{name}.cold.plan", compiled + compared, "CPU ms")
    yield Figure(f"{name}.cold.apply", applied, "CPU ms")

    settle_memory()
    yield Figure(f"{name}.manifests_memory", parsed - before, "MB")
    yield Figure(f"{name}.rows_memory", _resident() - parsed, "MB")
    yield Figure(f"{name}.kernel_memory", kernel.megabytes(), "MB")
    audits = [_timed(lambda: kernel.compare(wanted))[0] for _ in range(ROUNDS)]
    yield Figure(f"{name}.audit", median(audits), "CPU ms")
    turns = [_changed(kernel, facts, memory, turn) for turn in range(1, ROUNDS + 1)]
    for place, what in enumerate(("compile", "plan", "apply")):
        yield Figure(f"{name}.one_changed.{what}", median(turn[place] for turn in turns), "CPU ms")


def _changed(kernel: Kernel, facts: Facts, memory: ServiceMemory, turn: int) -> tuple[float, float, float]:
    """One service loses `turn` backends."""
    snapshot = _snapshot(commit=f"{turn}" * 40, gone=turn)
    settle_memory()
    compiled, wanted = _timed(lambda: services(snapshot, facts, memory))
    compared, deltas = _timed(lambda: kernel.compare(wanted))
    assert 0 < sum(delta.counts.total for delta in deltas) < EACH
    applied, _ = _timed(lambda: kernel.apply(deltas))
    kernel.generation.finish()
    return compiled, compiled + compared, applied


def _maglev() -> Iterator[Figure]:
    backends = tuple((number * 7919, 1) for number in range(1, POOL + 1))
    (whole,) = tables([pool(backends)])
    moved = []
    for gone in range(0, POOL, 10):
        (left,) = tables([pool(backends[:gone] + backends[gone + 1 :])])
        places = np.where(left >= gone, left + 1, left)
        others = whole != gone
        moved.append(float((whole[others] != places[others]).sum() / len(whole) * 100))
    yield Figure("services.maglev.moved_besides_its_own", max(moved), "%")
    shares = np.bincount(whole, minlength=POOL)
    yield Figure("services.maglev.largest_share", float(shares.max() / shares.mean()), "times")


def _snapshot(commit: str = "c" * 40, gone: int = 0) -> Snapshot:
    """The first service has `gone` backends less than the others."""

    def origin(kind: str, number: int) -> Origin:
        return Origin(f"services/{number}.yaml", 1, kind, f"default/s{number}", commit)

    home = Origin("cluster.yaml", 1, "Cluster", "bench", commit)
    some = [
        Service("default", f"s{i}", origin("Service", i), ports=_PORTS, cluster_ips=(IPv4Address(_FIRST_SERVICE + i),))
        for i in range(COUNT)
    ]
    slices = [replace(one, origin=origin("EndpointSlice", i)) for i, one in enumerate(_SLICES)]
    if gone:
        slices[0] = replace(slices[0], endpoints=slices[0].endpoints[gone:])
    return Snapshot(
        commit,
        Cluster("bench", home, services=Services()),
        {NODE: Node(NODE, home, cidr4=IPv4Network("10.1.0.0/24"), address4=IPv4Address("192.0.2.1"))},
        {},
        {},
        (),
        services={one.reference: one for one in some},
        slices={one.reference: one for one in slices},
    )


_PORTS = (ServicePort("", 6, 80, 8080),)
_SLICE_PORTS = (SlicePort("", 6, 8080),)
_SLICES = [
    EndpointSlice(
        "default",
        f"s{i}",
        Origin("", 1, "EndpointSlice", f"default/s{i}", ""),
        f"s{i}",
        endpoints=tuple(SliceEndpoint((IPv4Address(_FIRST_BACKEND + i * EACH + k),)) for k in range(EACH)),
        ports=_SLICE_PORTS,
    )
    for i in range(COUNT)
]


def _timed(do: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds of CPU, of this process and of the kernel for it."""
    began = time.process_time()
    result = do()
    return (time.process_time() - began) * 1000, result


def _resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _memlock(descriptor: int) -> int:
    said = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return next(int(line.split()[1]) for line in said.splitlines() if line.startswith("memlock:"))
