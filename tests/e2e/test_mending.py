"""A row that somebody touched is put right at once, also in the middle of a pass, and told of once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import numpy as np
import pytest

from reconciler.bpf.maps import Records
from reconciler.daemon.convergence import Convergence
from reconciler.daemon.mending import TOUCHED_AT_ONCE, Mending
from reconciler.daemon.suspects import Suspects
from reconciler.daemon.trigger import Work
from reconciler.host import Host
from reconciler.host.touched import GoneRow, TouchedMap
from reconciler.kernel.bpf_maps import Map, PinnedMaps
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import DaemonHost, made_host

pytestmark = pytest.mark.root
REASON = "map 7 deleted by pid 812"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("mending"), "web", started=False) as found:
        yield found


class Writer:
    """The daemon's writer thread, one job at a time and when the test says so; `poked` is what it asked for."""

    def __init__(self, host: Host, ipcache: Map) -> None:
        self.host = host
        self.ipcache = ipcache
        self.jobs: list[Callable[[], object]] = []
        self.poked: list[tuple[str, ...]] = []
        suspects = Suspects()
        self.mending = Mending(host, suspects, self.jobs.append, lambda *why: self.poked.append(why))
        self.convergence = Convergence(host, suspects, self.mending)

    def delete(self, key: Records) -> None:
        """As somebody does whom the kernel tells of."""
        self.ipcache.delete(key)
        self.mending.touch(TouchedMap(self.ipcache.info.id, key.tobytes()), REASON, "ipcache")

    def has(self, key: Records) -> bool:
        return bool(self.ipcache.lookup(key)[0][0])


@pytest.fixture
def writer(made: DaemonHost) -> Iterator[Writer]:
    with inside(made.path), Host.open(made.config) as host:
        host.converge(made.git("rev-parse", "HEAD"))
        host.tables["ipcache"].flip.finish()  # type: ignore[union-attr]
        host.watched_maps()
        yield Writer(host, PinnedMaps(made.config.pin_root).open("ipcache4"))
        assert host.drift() is None


@pytest.fixture
def web(writer: Writer) -> Records:
    """The key of a workload's address in the map."""
    endpoints = writer.host.tables["endpoints"].live().rows  # type: ignore[union-attr]
    address = next(one for one in endpoints if isinstance(one, IPv4Address))
    return np.frombuffer(address.packed, writer.ipcache.key_dtype)


def test_a_touched_row_is_back_before_its_table_is_asked_for(writer: Writer, web: Records) -> None:
    writer.delete(web)
    assert not writer.has(web)
    (job,) = writer.jobs
    assert writer.poked == []
    job()
    assert writer.has(web)
    assert writer.poked == [(REASON, "ipcache")]


def test_tables_are_asked_for_also_after_a_touch_that_cannot_be_understood(writer: Writer) -> None:
    writer.mending.touch(TouchedMap(writer.ipcache.info.id, bytearray(4)), REASON, "ipcache")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        writer.jobs[0]()
    assert writer.poked == [(REASON, "ipcache")]


def test_a_row_that_is_touched_during_a_pass_is_back_before_it_ends(writer: Writer, web: Records) -> None:
    writer.delete(web)
    done = writer.convergence.run(Work(reasons=["audit"], tables={"ipcache", "routes"}))
    assert writer.has(web)
    assert [(report.table, report.what) for report in done.drift] == [("ipcache", "deleted")]
    assert done.drift[0].repaired_ms is not None


def test_what_is_touched_between_two_tables_is_no_longer_there_to_be_repaired(writer: Writer, web: Records) -> None:
    deeds = iter([lambda: writer.delete(web)])

    def between() -> frozenset[str]:
        next(deeds, lambda: None)()
        return writer.mending.run()

    assert writer.host.drift({"ipcache", "policy"}, between) is None
    assert writer.has(web)


def test_what_was_put_right_is_told_once(writer: Writer, web: Records) -> None:
    writer.delete(web)
    writer.jobs[0]()
    passes = [writer.convergence.run(Work(reasons=["map"], tables={"ipcache"})) for _ in range(2)]
    assert [len(done.drift) for done in passes] == [1, 0]


def test_a_suspended_host_leaves_what_was_touched(writer: Writer, web: Records) -> None:
    writer.host.suspend("a test")
    writer.delete(web)
    writer.jobs[0]()
    assert not writer.has(web)
    writer.host.resume()
    writer.convergence.run(Work(reasons=["resumed"], tables={"ipcache"}))
    assert writer.has(web)


def test_a_touch_that_changed_nothing_writes_nothing(writer: Writer, web: Records) -> None:
    writer.mending.touch(TouchedMap(writer.ipcache.info.id, web.tobytes()), REASON, "ipcache")
    assert writer.mending.run() == frozenset()
    assert writer.mending.told() == []


def test_a_row_is_put_right_while_rows_are_counted(writer: Writer, web: Records) -> None:
    writer.delete(web)
    writer.host.row_counts(writer.mending.run)
    assert writer.has(web)


def test_what_is_too_much_at_once_is_left_to_the_pass(writer: Writer, web: Records) -> None:
    writer.delete(web)
    for number in range(TOUCHED_AT_ONCE):
        writer.mending.touch(TouchedMap(writer.ipcache.info.id, number.to_bytes(4, "big")), REASON, "ipcache")
    assert writer.mending.run() == frozenset()
    done = writer.convergence.run(Work(reasons=["map"], tables={"ipcache"}))
    assert [report.what for report in done.drift] == ["deleted"]


def test_a_route_that_is_gone_comes_back(made: DaemonHost, writer: Writer) -> None:
    routes = writer.host.tables["routes"]
    before = routes.live().rows  # type: ignore[union-attr]
    key = next(one for one in before if not one.netns and one.destination.version == 4)
    made.ip("route", "del", str(key.destination))
    plan = writer.host.drift_at({GoneRow("routes", key)})
    assert plan is not None
    assert [(change.before, change.after) for change in plan.changes()] == [(None, before[key])]
    writer.mending.touch(GoneRow("routes", key), REASON, "routes")
    assert writer.mending.run() == {"routes"}
    assert routes.live().rows == before  # type: ignore[union-attr]


def test_a_route_that_came_back_by_itself_stays_as_it_is(writer: Writer) -> None:
    routes = writer.host.tables["routes"]
    before = routes.live().rows  # type: ignore[union-attr]
    writer.mending.touch(GoneRow("routes", next(iter(before))), REASON, "routes")
    writer.mending.run()
    assert routes.live().rows == before  # type: ignore[union-attr]
