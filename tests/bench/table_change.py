"""A service's table changes under 1,000 connections a second: from the commit to the flip, and what is lost.

Each commit changes how backends are chosen, or takes one out that goes on serving those who are there. `lost` are
connections that failed, or whose first packet did.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation
from tests.bench.figures import Figure, median, percentile
from tests.e2e.daemon_host import DaemonHost, until
from tests.e2e.loaded_host import LoadedHost, changing_tables, loaded_host

BACKENDS = ("b0", "b1", "b2", "b3")
CHANGES = 60
BETWEEN = 100  # answers


def measure() -> Iterator[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="pt-bench-"))  # which the host removes
    with loaded_host(folder, BACKENDS, BACKENDS) as loaded:
        times, lost, made = _changed(loaded)
    yield Figure("table_change.enforced.p50", median(times), "ms")
    yield Figure("table_change.enforced.p99", percentile(times, 99), "ms")
    yield Figure("table_change.connections", made, "")
    yield Figure("table_change.lost", lost, "")


def _changed(loaded: LoadedHost) -> tuple[list[float], int, int]:
    commits = list(_commits(loaded))
    with loaded.load():
        loaded.backends.until_answered(1000)
        times = []
        for turn in range(CHANGES):
            times.append(enforced_ms(loaded.host, commits[(turn + 1) % len(commits)]))
            loaded.backends.until_answered(BETWEEN)
    return times, *_told(loaded)


def _told(loaded: LoadedHost) -> tuple[int, int]:
    """Connections that were lost, and all of them."""
    kinds = loaded.kinds.values()
    lost = sum(len(one.failures) + len(one.tally["asked_twice"]) for one in kinds)
    return lost, sum(one.tally["made"] for one in kinds)


def _commits(loaded: LoadedHost) -> Iterator[str]:
    for text in changing_tables(loaded.host):
        loaded.host.write("services/web.yaml", text)
        yield loaded.host.commit()
        loaded.host.wait_for(loaded.host.git("rev-parse", "HEAD"))


def enforced_ms(host: DaemonHost, commit: str) -> float:
    """From before the branch moves until packets see another epoch."""
    generation = Generation(PinnedMaps(host.config.pin_root))
    before, began = generation.current.epoch, time.monotonic()
    host.git("update-ref", "refs/heads/main", commit)
    until(lambda: generation.current.epoch != before, "packets see the commit")
    spent = (time.monotonic() - began) * 1000
    assert host.outcome(commit)["result"] == "applied"
    return spent
