"""100,000 denied CIDRs in three documents, and what one more costs: from manifests to the tries, in CPU time.

`validate` reads and checks a tree, cold or with the one document that changed; `compile` makes rows; `apply` compares
them with every live one, writes, and reads the rows again that it touched. `audit` compares alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from reconciler.compile.prefilter import PrefilterMemory, prefilter
from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns
from reconciler.engine.transaction import unmet, write
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.prefilter import PrefilterTable
from reconciler.source.loading import Cache, load_directory
from tests.bench.bed import BPFFS, PREFIX
from tests.bench.figures import Figure, median

COUNT, PARTS = 100_000, 3
ROUNDS = 5
NODE = "alpha"
_HEAD = "apiVersion: plumbline/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"

T = TypeVar("T")


def measure() -> Iterator[Figure]:
    root = BPFFS / f"{PREFIX}-prefilter"
    try:
        Datapath(root, {"prefilter": True}).load()
        with TemporaryDirectory() as folder:
            yield from _measured(Path(folder), PrefilterTable(PinnedMaps(root)))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _measured(tree: Path, table: PrefilterTable) -> Iterator[Figure]:
    name, cache, memory = f"prefilter.{COUNT}", Cache(), PrefilterMemory()
    (tree / "cluster.yaml").write_text(_HEAD.format(kind="Cluster", name="demo"))
    (tree / "node.yaml").write_text(_HEAD.format(kind="Node", name=NODE) + "spec: {cidrs: [10.44.0.0/24]}\n")
    for part in range(PARTS):
        _write(tree, part, 0)
    cold = _turn(tree, cache, memory, table)
    turns = [_turn(tree, cache, memory, table, changed) for changed in range(1, ROUNDS + 1)]
    for place, what in enumerate(("validate", "compile", "apply")):
        yield Figure(f"{name}.cold.{what}", cold[place], "CPU ms")
    for place, what in enumerate(("validate", "compile", "apply")):
        yield Figure(f"{name}.one_more.{what}", median(turn[place] for turn in turns), "CPU ms")
    rows = prefilter(load_directory(tree, cache), NODE, memory)
    audits = [_timed(lambda: diff_rows(table.name, rows, table.live(), complete=True))[0] for _ in range(ROUNDS)]
    yield Figure(f"{name}.audit", median(audits), "CPU ms")


def _turn(
    tree: Path, cache: Cache, memory: PrefilterMemory, table: PrefilterTable, more: int = 0
) -> tuple[float, float, float]:
    if more:
        _write(tree, PARTS - 1, more)
    validated, snapshot = _timed(lambda: load_directory(tree, cache))
    compiled, rows = _timed(lambda: prefilter(snapshot, NODE, memory))
    applied, changed = _timed(lambda: _apply(rows, table))
    assert changed == (1 if more else len(rows))
    return validated, compiled, applied


def _apply(rows: Columns, table: PrefilterTable) -> int:
    delta = diff_rows(table.name, rows, table.live(), complete=True)
    write([delta], {table.name: table})
    assert not unmet([delta], {table.name: table})
    return delta.counts.total


def _write(tree: Path, part: int, more: int) -> None:
    count = COUNT // PARTS + more + (COUNT % PARTS if part == 0 else 0)
    entries = "".join(f"  - 100.{part}.{number >> 8}.{number & 255}/32\n" for number in range(count))
    (tree / f"part{part}.yaml").write_text(
        f"{_HEAD.format(kind='Prefilter', name=f'part{part}')}spec:\n  deny:\n{entries}"
    )


def _timed(run: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds of this process, and the result."""
    began = time.process_time_ns()
    result = run()
    return (time.process_time_ns() - began) / 1e6, result
