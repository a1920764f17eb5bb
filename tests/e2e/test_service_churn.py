"""Backends die and come every second for a minute, under 1,000 connections a second: those to living ones go on.

Every other one dies as a process does, and the commit that takes it out comes after; the others go by a commit. A
connection to a living backend may not fail, whether it lasts or asks once. One that was with a backend when that went
may, and while a dead backend is still in the table, those may that it refuses.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.daemon_host import until
from tests.e2e.loaded_host import LoadedHost, loaded_host
from tests.e2e.service_load import Kill

pytestmark = pytest.mark.root

SECONDS = int(os.environ.get("PLUMB_TEST_CHURN_S", "60"))
STEADY, OTHERS = ("s0", "s1"), ("b0", "b1", "b2", "b3", "b4", "b5")
ALIVE = 3  # of the others


def test_connections_to_living_backends_go_on_while_others_die_and_come(tmp_path: Path) -> None:
    alive, chance = list(OTHERS[:ALIVE]), random.Random(5)
    with loaded_host(tmp_path, STEADY + OTHERS, [*STEADY, *alive]) as loaded, loaded.load():
        kills = [_exchange(loaded, alive, chance, in_table=bool(turn % 2)) for turn in _every_second(SECONDS)]
    loaded.assert_only_these_failed(kills)
    for one in loaded.kinds.values():
        assert set(one.tally["by_backend"]) == {*STEADY, *OTHERS}
        assert one.tally["oldest"] > SECONDS  # a connection that was there all the time


def _every_second(seconds: int) -> Iterator[int]:
    began = time.monotonic()
    for turn in range(seconds):
        until(partial(_is_past, began + turn), "the next second")
        yield turn


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def _exchange(loaded: LoadedHost, alive: list[str], chance: random.Random, *, in_table: bool) -> Kill:
    """One commit takes a backend out and another one in; the one that goes is dead before, or until then lives."""
    goes, comes = chance.choice(alive), chance.choice([one for one in OTHERS if one not in alive])
    loaded.backends.open(comes)
    loaded.there(comes)
    loaded.away(goes)
    began = time.monotonic()
    connections = loaded.backends.kill(goes) if in_table else ()
    loaded.host.wait_for(loaded.host.commit())
    ended = time.monotonic()
    if not in_table:
        connections = loaded.backends.kill(goes)
    loaded.gone(goes)
    alive.remove(goes)
    alive.append(comes)
    return Kill(goes, connections, began, ended, in_table)
