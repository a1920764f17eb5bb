"""Which programs a host keeps at hand: those of the commit that comes and of the one that is applied, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.config import make
from reconciler.datapath.options import map_sizes_of
from reconciler.engine.rows import DictRows
from reconciler.errors import KernelError
from reconciler.host.tables import HostTables
from reconciler.kernel.programs import ProgramsTable
from reconciler.model.cluster import Cluster, Conntrack, DirectReturn, Services, Timeouts, XdpMode
from reconciler.model.origin import Origin
from reconciler.model.prefilter import Prefilter
from reconciler.model.selector import Selector
from reconciler.model.snapshot import Snapshot

ORIGIN = Origin("cluster.yaml", 1, "Cluster", "pt", "")
ONE = Snapshot("", Cluster("pt", ORIGIN), {}, {}, {}, ())
SLOWER = replace(ONE, cluster=replace(ONE.cluster, conntrack=Conntrack(timeouts=Timeouts(udp_s=61))))
SMALLER = replace(ONE, cluster=replace(ONE.cluster, conntrack=Conntrack(max_entries=1024)))
DENYING = replace(ONE, prefilters=(Prefilter("bad", ORIGIN, Selector(), bytes(24), bytes(8)),))


@pytest.fixture
def tables(pin_root: Path) -> HostTables:
    return HostTables(make("pt", Path("/nowhere"), pin_root=pin_root))


def _write(tables: HostTables, rows: DictRows) -> None:
    table = tables.by_name["programs"]
    assert isinstance(table, ProgramsTable)
    table.write({str(name): row for name, row in rows.rows.items()}, ())


@pytest.mark.parametrize("other", [SLOWER, SMALLER, DENYING])
def test_other_options_or_sizes_of_maps_are_other_programs(tables: HostTables, other: Snapshot) -> None:
    assert tables.programs(ONE).rows != tables.programs(other).rows


def test_flows_that_go_through_have_room_only_where_some_may() -> None:
    serving = replace(ONE.cluster, services=Services())
    early = replace(serving, xdp=XdpMode.AUTO)
    room = [map_sizes_of(one)["passing4"] for one in (ONE.cluster, serving, early)]
    assert room == [64, 64, early.conntrack.max_entries]


def test_ports_of_wrapped_connections_have_room_only_where_some_come_in_ipip() -> None:
    ways = [replace(ONE.cluster, services=Services(direct_return=way)) for way in DirectReturn]
    room = {one.direct_return: map_sizes_of(one)["backend_ports"] for one in ways}
    assert room.pop(DirectReturn.IPIP) == ONE.cluster.conntrack.max_entries
    assert set(room.values()) == {64}


def test_a_cluster_of_the_same_settings_reads_no_object_again(tables: HostTables) -> None:
    tables.programs(ONE)
    (before,) = tables._datapaths.values()
    tables.programs(replace(ONE, cluster=replace(ONE.cluster, name="renamed", mtu_bytes=1400)), ONE)
    (after,) = tables._datapaths.values()
    assert after is before


def test_one_more_cidr_that_is_denied_changes_no_program(tables: HostTables) -> None:
    more = replace(DENYING, prefilters=(replace(DENYING.prefilters[0], deny=bytes(48), places=bytes(16)),))
    assert tables.programs(DENYING).rows == tables.programs(more).rows


def test_programs_of_the_applied_commit_can_be_loaded_again_to_go_back(tables: HostTables) -> None:
    old = tables.programs(ONE)
    _write(tables, tables.programs(SLOWER, ONE))
    _write(tables, old)
    assert tables.by_name["programs"].live() == old


def test_programs_of_neither_commit_are_not_loaded(tables: HostTables) -> None:
    old = tables.programs(ONE)
    tables.programs(SLOWER)
    with pytest.raises(KernelError, match="is not what this version and configuration would load"):
        _write(tables, old)
