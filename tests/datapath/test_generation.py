"""The word that makes a commit a transaction: what it is before, at and after a flip, and who may stage."""

from __future__ import annotations

import fcntl
import os
from threading import Event, Thread

import numpy as np
import pytest

from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation, Version

from .harness import Allow, Harness, ipcache_rows
from .test_ipcache_table import NONE, row

LAST = (1 << 32) - 1


def test_it_begins_at_zero_and_counts_flips(datapath: Harness) -> None:
    assert datapath.generation.current == Version(0, 0)
    datapath.become(policy=[Allow(101)])
    assert datapath.generation.current == Version(1, 1)
    datapath.become(policy=[Allow(102)])
    assert datapath.generation.current == Version(2, 2)


def test_a_flip_without_new_policy_keeps_the_generation(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    datapath.become(ipcache={row("10.0.0.1"): (5, 0)})
    assert datapath.generation.current == Version(2, 1)
    assert len(datapath.policy.live()) == 1


def test_a_flip_with_nothing_staged_changes_nothing(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    datapath.generation.begin()
    datapath.generation.flip()
    assert datapath.generation.current == Version(1, 1)


def test_events_and_version_are_set_apart(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    datapath.generation.set_events(1)
    assert datapath.generation.current == Version(1, 1)
    datapath.become(policy=[Allow(102)])
    assert datapath.maps.open("state").lookup(np.zeros(1, np.uint32))[1]["events"].tolist() == [1]


def test_epochs_wrap_around_past_zero(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)], ipcache={row("10.0.0.1"): (5, 0)})
    datapath.generation.finish()
    datapath.generation._write(datapath.maps.open("state"), Version(LAST, 1), 3)
    datapath.become(ipcache={row("10.0.0.1"): (6, 0), row("10.0.0.2"): (7, 0)})
    assert datapath.generation.current == Version(1, 1)
    assert datapath.ipcache.live().values["identity"].tolist() in ([6, 7], [7, 6])


def test_a_state_that_was_lost_forgets_the_flows_of_its_earlier_life(datapath: Harness) -> None:
    flows = datapath.maps.open("conntrack4")
    flows.update(np.ones(1, flows.key_dtype), np.ones(1, flows.value_dtype))
    datapath.generation.begin()
    assert len(flows.read()[0]) == 0


def test_nobody_stages_while_another_process_cleans(datapath: Harness) -> None:
    datapath.generation.finish()
    other, begun = Generation(PinnedMaps(datapath.root)), Event()
    lock = os.open(datapath.root / "maps", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def begin() -> None:
        other.begin()
        begun.set()

    thread = Thread(target=begin)
    thread.start()
    assert not begun.wait(0.05)
    os.close(lock)
    thread.join()
    assert begun.is_set()


def test_what_goes_wrong_in_the_background_is_raised_later_and_cleaned_by_the_next(datapath: Harness) -> None:
    def fail() -> None:
        raise RuntimeError("in the background")

    datapath.generation.begin()
    datapath.ipcache.write(ipcache_rows({row("10.0.0.1"): (5, 0)}), NONE)
    datapath.generation.stage(fail)
    datapath.generation.flip()
    with pytest.raises(RuntimeError, match="in the background"):
        datapath.generation.finish()
    datapath.become(ipcache={})
    assert len(datapath.ipcache.live()) == 0
