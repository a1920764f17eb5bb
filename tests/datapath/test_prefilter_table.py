"""Who is denied, as a table over tries; and what comes from there is dropped at a node device whatever runs at XDP."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns
from reconciler.engine.transaction import unmet, write
from reconciler.host.fields import prefix
from reconciler.kernel.prefilter import PrefilterTable
from reconciler.model.outside import DeviceFlag
from reconciler.model.prefilter import PREFILTER_VALUE
from reconciler.observe import counters
from reconciler.observe.flow import Reason
from reconciler.source.prefilters import key_of, records

from .gate import HOST, WORLD, Gate, made_gate
from .harness import SHOT, UNSPEC, Harness
from .packets import echo, tcp

families = pytest.mark.parametrize("version", [4, 6])
NESTED = ("203.0.113.0/24", "203.0.113.0/25", "203.0.113.0/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::/128", "::/0")
AROUND = {4: "203.0.113.0/28", 6: "2001:db8::/124"}  # of WORLD


def rows(*cidrs: str) -> Columns:
    networks = [ip_network(cidr) for cidr in cidrs]
    values = np.zeros(len(networks), PREFILTER_VALUE)
    values["length"] = [one.prefixlen for one in networks]
    return Columns(records([key_of(one) for one in networks]), values)


def shown(found: Columns) -> set[str]:
    return {str(ip_network(prefix(int(key["high"]), int(key["low"]), int(key["bits"])))) for key in found.keys}


@pytest.fixture
def table(datapath: Harness) -> Iterator[PrefilterTable]:
    made = PrefilterTable(datapath.maps)
    yield made
    made.write(rows(), made.live().keys)


def become(table: PrefilterTable, *cidrs: str) -> str:
    delta = diff_rows("prefilter", rows(*cidrs), table.live(), complete=True)
    write([delta], {"prefilter": table})
    assert unmet([delta], {"prefilter": table}) == []
    assert shown(table.live()) == set(cidrs)
    return str(delta.counts)


def test_rows_that_cover_each_other_are_told_apart(table: PrefilterTable) -> None:
    assert become(table, *NESTED) == "+7 ~0 -0"
    assert become(table, *NESTED) == "+0 ~0 -0"
    gone = rows("203.0.113.0/25", "203.0.113.0/26", "2001:db8::/33", "2001:db8::/128")
    assert shown(table.live(gone.keys)) == {"203.0.113.0/25", "2001:db8::/128"}
    table.write(rows(), gone.keys)
    table.write(rows(), gone.keys)
    assert shown(table.live()) == set(NESTED) - {"203.0.113.0/25", "2001:db8::/128"}
    assert len(table.live(gone.keys)) == 0


@given(st.lists(st.sets(st.sampled_from(NESTED)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_becomes_any_other(table: PrefilterTable, states: list[set[str]]) -> None:
    for state in states:
        become(table, *state)


@pytest.mark.parametrize("cidr", ["203.0.113.0/25", "2001:db8::/128"])
def test_a_row_that_somebody_changes_or_deletes_shows_and_comes_back(
    table: PrefilterTable, datapath: Harness, cidr: str
) -> None:
    become(table, *NESTED)
    name = f"prefilter{ip_network(cidr).version}"
    map_ = datapath.maps.open(name)
    keys = map_.read()[0]
    (key,) = (keys[at : at + 1] for at in range(len(keys)) if shown(_row(table, name, keys[at])) == {cidr})
    map_.update(key, np.array([77], map_.value_dtype))
    assert table.live(_row(table, name, key).keys).values["length"].tolist() == [77]
    assert become(table, *NESTED) == "+0 ~1 -0"
    map_.delete(key)
    assert len(table.live(_row(table, name, key).keys)) == 0
    assert become(table, *NESTED) == "+1 ~0 -0"


def _row(table: PrefilterTable, name: str, key: np.void) -> Columns:
    keys = table.keys_of(name, key.tobytes())
    return Columns(keys, np.zeros(len(keys), PREFILTER_VALUE))


def test_as_many_as_a_commit_may_ask_for_are_exchanged_for_as_many_others(table: PrefilterTable) -> None:
    first, second = (_addresses(start, 131_072) for start in (0, 1 << 24))
    for state in (first, second):
        delta = diff_rows("prefilter", state, table.live(), complete=True)
        write([delta], {"prefilter": table})
        assert not diff_rows("prefilter", state, table.live(), complete=True)


def _addresses(start: int, count: int) -> Columns:
    found = rows("0.0.0.0/32").take(np.zeros(count, np.intp))
    found.keys["low"] += np.arange(start, start + count, dtype=np.uint64)
    return found


@pytest.fixture
def gate(datapath: Harness) -> Iterator[Gate]:
    with made_gate(datapath, DeviceFlag.NOTHING) as made:
        yield made


def counted(gate: Gate) -> tuple[int, int]:
    found = counters.read(gate.datapath.maps.open("counters")).by_reason[Reason.PREFILTERED]
    return found.packets, found.bytes


@families
def test_who_is_denied_is_dropped_and_counted_at_a_node_device(table: PrefilterTable, gate: Gate, version: int) -> None:
    mine = WORLD[version], HOST[version]
    for frame in (echo(*mine), tcp(mine[0], 5000, mine[1], 80)):
        assert gate.arrives(frame) == (UNSPEC, frame)
        become(table, AROUND[version])
        packets, octets = counted(gate)
        assert gate.arrives(frame)[0] == SHOT
        assert counted(gate) == (packets + 1, octets + len(frame))
        become(table)


@families
def test_only_what_comes_from_there_is_dropped(table: PrefilterTable, gate: Gate, version: int) -> None:
    become(table, AROUND[version])
    there = echo(HOST[version], WORLD[version])
    assert gate.leaves(there, forwarded=False) == (UNSPEC, there)
    other = echo(HOST[version], HOST[version])
    assert gate.arrives(other) == (UNSPEC, other)
