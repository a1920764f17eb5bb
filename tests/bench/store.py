"""The store, embedded and etcd: writes, compare-and-swaps, whole ranges, and how late a watch hears of a change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler.store.embedded import EmbeddedStore
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_servers import Servers
from reconciler.store.protocol import ABSENT, Store
from tests.bench.figures import Figure, median, percentile
from tests.unit.store.etcd_server import running

WRITES, THREADS = 1_000, 16
RANGES = (10_000, 100_000)
CHANGES = 200
VALUE = b'{"identity": 16777216, "node": "alpha", "workload": "default/web"}'
DEADLINE_S = 10.0

Open = Callable[[], Store]


def measure() -> Iterator[Figure]:
    for kind in (embedded, etcd):
        with TemporaryDirectory(prefix="pt-bench-") as folder, kind(Path(folder)) as opened:
            yield from _figures(f"store.{kind.__name__}", opened)


@contextmanager
def embedded(folder: Path) -> Iterator[Open]:
    yield lambda: EmbeddedStore(folder / "store.sqlite")


@contextmanager
def etcd(folder: Path) -> Iterator[Open]:
    with running(folder) as server:
        yield lambda: EtcdStore(Servers([server.endpoint]))


def _figures(name: str, opened: Open) -> Iterator[Figure]:
    with closing(opened()) as store, closing(opened()) as other:
        yield Figure(f"{name}.put", _per_second(lambda one: store.put(f"/put/{one}", VALUE)), "/s")
        with ThreadPoolExecutor(THREADS) as threads:
            began = time.monotonic()
            list(threads.map(lambda one: store.put(f"/threads/{one}", VALUE), range(WRITES)))
            yield Figure(f"{name}.put.threads_{THREADS}", WRITES / (time.monotonic() - began), "/s")
        swap = _per_second(lambda one: store.compare_and_swap(f"/swap/{one}", VALUE, ABSENT))
        yield Figure(f"{name}.swap", swap, "/s")
        lags = _lags_ms(store, other)
        yield Figure(f"{name}.watch_lag.p50", median(lags), "ms")
        yield Figure(f"{name}.watch_lag.p99", percentile(lags, 99), "ms")
        for count in RANGES:
            _fill(store, f"/range-{count}/", count)
            began = time.monotonic()
            found = store.range(f"/range-{count}/")
            yield Figure(f"{name}.range_{count}", (time.monotonic() - began) * 1e3, "ms")
            assert len(found.items) == count


def _per_second(write: Callable[[int], object]) -> float:
    began = time.monotonic()
    for number in range(WRITES):
        assert write(number)
    return WRITES / (time.monotonic() - began)


def _fill(store: Store, prefix: str, count: int) -> None:
    size = min(store.max_writes, 10_000)
    for start in range(0, count, size):
        writes = {f"{prefix}{one:07}": VALUE for one in range(start, min(start + size, count))}
        assert store.transact({}, {**writes})


def _lags_ms(store: Store, other: Store) -> list[float]:
    """From before the put of one client until another one's watch has it."""
    lags: list[float] = []
    watch = other.watch("/lag/", other.range("/lag/").revision)
    for _ in range(CHANGES):
        began = time.monotonic()
        store.put("/lag/a", VALUE)
        assert watch.poll(DEADLINE_S)
        lags.append((time.monotonic() - began) * 1e3)
    watch.close()
    return lags
