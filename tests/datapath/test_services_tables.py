"""Services in the kernel: what packets would find before, between and after a write and its flip, and what is odd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest

from reconciler.bpf import maps, syscalls
from reconciler.bpf.syscalls import held
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.engine.table import Table
from reconciler.engine.transaction import unmet, write
from reconciler.errors import KernelError
from reconciler.kernel.backends import BackendsTable
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.frontends import FrontendsTable
from reconciler.kernel.service_tables import ServiceTables, pool
from reconciler.kernel.services import ServicesTable
from reconciler.model.balancing import (
    BACKEND_KEY,
    BACKEND_VALUE,
    FRONTEND_KEY,
    FRONTEND_VALUE,
    Algorithm,
    BackendFlag,
    Scope,
    ServiceRow,
    WhenNone,
    words_of,
)
from reconciler.model.maglev import tables

from .harness import Harness

MAPS = ("frontends4", "frontends6", "services", "service_tables", "service_sources4", "service_sources6", "backends")
A, B = (7, 1), (9, 3)
ROW = ServiceRow(77, (A, B), affinity_s=30)


def frontends(rows: Mapping[tuple[str, int, Scope], int]) -> Columns:
    keys, values = np.zeros(len(rows), FRONTEND_KEY), np.zeros(len(rows), FRONTEND_VALUE)
    for key, value, ((address, port, scope), service) in zip(keys, values, rows.items(), strict=True):
        key["high"], key["low"] = words_of(ip_address(address))
        key["port"], key["protocol"], key["scope"] = port, 6, scope
        value["service"], value["flags"] = service, 1
    return Columns(keys, values)


def backends(rows: Mapping[int, tuple[str, int]]) -> Columns:
    keys, values = np.zeros(len(rows), BACKEND_KEY), np.zeros(len(rows), BACKEND_VALUE)
    for key, value, (number, (address, port)) in zip(keys, values, rows.items(), strict=True):
        one = ip_address(address)
        key["id"], (value["high"], value["low"]) = number, words_of(one)
        value["port"], value["protocol"] = port, 17
        value["flags"] = BackendFlag.V6 if one.version == 6 else BackendFlag.LOCAL
    return Columns(keys, values)


FRONTENDS = frontends({("10.96.0.1", 80, Scope.INSIDE): 5, ("fd96::1", 443, Scope.OUTSIDE): 6})
BACKENDS = backends({7: ("10.44.1.2", 8080), 9: ("fd44::9", 53)})
NOTHING: Mapping[str, Rows] = {"frontends": frontends({}), "services": DictRows({}), "backends": backends({})}


class Bench:
    def __init__(self, datapath: Harness) -> None:
        self.datapath = datapath
        self.maps, self.generation = datapath.maps, datapath.generation
        self.backends = BackendsTable(self.maps, self.generation)
        self.services = ServicesTable(self.maps, self.generation)
        self.frontends = FrontendsTable(self.maps, self.generation)
        self.tables: dict[str, Table] = {one.name: one for one in (self.backends, self.services, self.frontends)}

    def become(self, wanted: Mapping[str, Rows]) -> None:
        deltas = [diff_rows(name, rows, self.tables[name].live(), complete=True) for name, rows in wanted.items()]
        write(deltas, self.tables)
        assert unmet(deltas, self.tables) == []

    def differs(self, wanted: Mapping[str, Rows]) -> list[str]:
        return [name for name, rows in wanted.items() if diff_rows(name, rows, self.tables[name].live(), complete=True)]

    def slots(self, service: int) -> list[int]:
        """Id of the backend of each slot, as backend_in_slot() in bpf/lib/service.h finds it."""
        row = self.maps.open("services").lookup(np.array([service], np.uint32))[1][0]
        number = int(self.maps.open("service_tables").lookup(np.array([service], np.uint32))[1][0])
        with held(syscalls.by_id(syscalls.MAP_BY_ID, number, "opening a table")) as table:
            words = maps.read(table, np.dtype("<u4"), np.dtype("<u8"), maps.info(table).max_entries)[1]
        slots = int(row["slots"])
        places = words.view("<u2")[:slots]
        return [int(number) & 0xFFFFFFFF for number in words[-(-slots // 4) :][places].tolist()]


@pytest.fixture
def bench(datapath: Harness) -> Iterator[Bench]:
    made = Bench(datapath)
    yield made
    made.generation.finish()
    for name in MAPS:
        map_ = made.maps.open(name)
        map_.delete(map_.read()[0])


ALL: Mapping[str, Rows] = {
    "frontends": FRONTENDS,
    "services": DictRows(
        {
            5: ROW,
            6: ServiceRow(
                78,
                (B,),
                Algorithm.RANDOM,
                sources=(ip_network("0.0.0.0/0"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
            ),
            4: ServiceRow(79, (), when_none=WhenNone.DROP),
        }
    ),
    "backends": BACKENDS,
}


def test_rows_are_read_as_they_were_written(bench: Bench) -> None:
    bench.become(ALL)
    assert bench.differs(ALL) == []


def test_nothing_is_left_of_rows_that_go(bench: Bench) -> None:
    bench.become(ALL)
    bench.become(NOTHING)
    bench.generation.finish()
    assert [len(bench.maps.open(name).read()[0]) for name in MAPS] == [0] * len(MAPS)


def test_tables_are_gone_when_remove_returns_though_the_last_was_not_there(bench: Bench) -> None:
    tables = ServiceTables(bench.maps)
    tables.enter(dict.fromkeys(range(1, 501), (A, B)))
    tables.remove(np.arange(1, 502, dtype=np.uint32))
    assert tables.live() == {}


def test_rows_that_are_asked_for_are_read_alone(bench: Bench) -> None:
    bench.become(ALL)
    assert list(bench.services.live([5, 3]).rows) == [5]
    assert bench.backends.live(BACKENDS.keys[1:]).keys["id"].tolist() == [9]
    assert bench.frontends.live(FRONTENDS.keys[1:]).values["service"].tolist() == [6]


def test_every_slot_names_the_backend_that_maglev_gives_it(bench: Bench) -> None:
    bench.become(ALL)
    (places,) = tables([pool(ROW.backends)])
    assert bench.slots(5) == [(A, B)[place][0] for place in places.tolist()]
    assert bench.slots(5).count(9) == pytest.approx(len(places) * 3 / 4, abs=1)


def test_services_with_the_same_backends_share_a_table(bench: Bench) -> None:
    bench.become({"services": DictRows({1: ROW, 2: ServiceRow(80, ROW.backends)})})
    bench.become({"services": DictRows({1: ROW, 2: ServiceRow(80, ROW.backends), 3: ServiceRow(81, ROW.backends)})})
    assert len(set(bench.maps.open("service_tables").read()[1].tolist())) == 1


def test_a_table_cannot_be_written_any_more(bench: Bench) -> None:
    bench.become(ALL)
    number = int(bench.maps.open("service_tables").lookup(np.array([5], np.uint32))[1][0])
    with held(syscalls.by_id(syscalls.MAP_BY_ID, number, "opening a table")) as table:
        assert maps.update(table, np.zeros(1, np.uint32), np.zeros(1, np.uint64)) != 0


def test_a_frontend_points_to_its_old_service_until_the_flip(bench: Bench) -> None:
    bench.become(ALL)
    wanted = frontends({("10.96.0.1", 80, Scope.INSIDE): 99, ("10.96.0.2", 80, Scope.INSIDE): 98})
    delta = diff_rows("frontends", wanted, bench.frontends.live(), complete=True)
    bench.generation.begin()
    bench.frontends.write(delta.upserts(), delta.deletes())  # type: ignore[arg-type]
    assert bench.differs({"frontends": FRONTENDS}) == []
    bench.generation.flip()
    assert bench.differs({"frontends": wanted}) == []


def test_frontends_that_were_never_flipped_are_taken_back_by_whoever_begins_next(bench: Bench) -> None:
    bench.become(ALL)
    bench.generation.begin()
    bench.frontends.write(frontends({("10.96.0.2", 80, Scope.INSIDE): 98}), FRONTENDS.keys)
    bench.generation.begin()
    assert bench.differs({"frontends": FRONTENDS}) == []
    assert len(bench.maps.open("frontends4").read()[0]) == 1


def test_a_version_that_goes_is_there_until_no_packet_needs_it(bench: Bench) -> None:
    bench.become(ALL)
    bench.generation.begin()
    bench.services.write({}, [5])
    bench.backends.write(backends({}), BACKENDS.keys)
    assert len(bench.maps.open("services").read()[0]) == 3
    bench.generation.flip()
    assert 5 not in bench.services.live().rows
    assert len(bench.backends.live()) == 0


@pytest.mark.parametrize("name", ["services", "service_tables", "backends", "frontends4", "service_sources6"])
def test_a_row_that_somebody_took_away_is_missed_and_put_back(bench: Bench, name: str) -> None:
    bench.become(ALL)
    bench.generation.finish()
    map_ = bench.maps.open(name)
    map_.delete(map_.read()[0])
    assert len(bench.differs(ALL)) == 1
    bench.become(ALL)
    assert bench.differs(ALL) == []


def test_a_frontend_is_put_right_in_place(bench: Bench) -> None:
    bench.become(ALL)
    bench.generation.finish()
    epoch = bench.generation.current.epoch
    map_ = bench.maps.open("frontends4")
    keys, values = map_.read()
    values["service"] = 1234
    map_.update(keys, values)
    delta = diff_rows("frontends", FRONTENDS, bench.frontends.live(), complete=True)
    assert bench.frontends.mend(delta.upserts(), delta.deletes())  # type: ignore[arg-type]
    assert bench.differs(ALL) == []
    assert bench.generation.current.epoch == epoch


def test_a_number_that_is_not_ours_shows(bench: Bench) -> None:
    bench.become(ALL)
    map_ = bench.maps.open("services")
    keys, values = map_.read()
    values["slots"] += 1
    map_.update(keys, values)
    assert bench.differs(ALL) == ["services"]


def test_another_reader_finds_what_is_in_the_tables(bench: Bench) -> None:
    bench.become(ALL)
    assert Bench(bench.datapath).differs(ALL) == []


def test_keys_of_touched_rows_are_those_of_rows(bench: Bench) -> None:
    bench.become(ALL)
    raw = bench.maps.open("frontends6").read()[0].tobytes()
    assert (bench.frontends.keys_of("frontends6", raw) == FRONTENDS.keys[1:]).all()
    assert sorted(bench.services.keys_of("services", bench.maps.open("services").read()[0].tobytes())) == [4, 5, 6]
    assert sorted(bench.backends.keys_of(bench.maps.open("backends").read()[0].tobytes())["id"].tolist()) == [7, 9]


def test_without_maps_there_are_no_rows(bench: Bench, tmp_path: Path) -> None:
    nowhere = PinnedMaps(tmp_path)
    assert len(ServicesTable(nowhere, bench.generation).live()) == 0
    with pytest.raises(KernelError, match="not pinned"):
        ServicesTable(nowhere, bench.generation).write({1: ROW}, [])
