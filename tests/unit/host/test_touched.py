"""From what was touched to the rows that should be there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reconciler.engine.rows import Columns, DictRows
from reconciler.host.touched import GoneRow, TouchedNamespace, among, are_gone, inside, united
from reconciler.model.datapath import IPCACHE_KEY, IPCACHE_VALUE
from reconciler.model.origin import Origin

ORIGIN = Origin("workloads/web.yaml", 2, "Workload", "default/web", "c" * 40)


@dataclass(frozen=True)
class Key:
    netns: str
    name: str


HERE, THERE = Key("", "a"), Key("/run/netns/web", "b")
ROWS = DictRows({HERE: 1, THERE: 2}, {THERE: ORIGIN})


def columns(*numbers: int) -> Columns:
    keys, values = np.zeros(len(numbers), IPCACHE_KEY), np.zeros(len(numbers), IPCACHE_VALUE)
    keys["low"], values["identity"] = numbers, numbers
    return Columns(keys, values)


def test_rows_of_a_namespace_are_found() -> None:
    assert inside("/run/netns/web", ROWS) == [THERE]
    assert inside("/run/netns/other", ROWS) == []


def test_rows_among_keys_keep_their_origins_and_strangers_have_none() -> None:
    found = among(ROWS, [THERE, Key("", "stranger")])
    assert found == DictRows({THERE: 2}, {THERE: ORIGIN})


def test_columns_among_keys_are_those_with_the_keys() -> None:
    found = among(columns(*range(100)), columns(7, 3, 1000).keys)
    assert isinstance(found, Columns)
    assert found.values["identity"].tolist() == [3, 7]


def test_a_key_that_was_touched_twice_counts_once() -> None:
    assert united([[HERE, THERE], [HERE]]) == {HERE, THERE}
    assert len(united([columns(1, 2).keys, columns(2).keys])) == 2


def test_rows_are_gone_if_each_was_said_to_be() -> None:
    said = {GoneRow("routes", HERE), TouchedNamespace("/run/netns/web", frozenset(("routes",)))}
    assert are_gone("routes", [HERE], said)
    assert not are_gone("routes", [HERE, THERE], said)
    assert not are_gone("rules", [HERE], said)


def test_a_row_of_columns_is_always_read() -> None:
    assert not are_gone("ipcache", columns(1).keys, {GoneRow("ipcache", HERE)})
