"""A lab of a cluster whose store is etcd: the lab runs the servers, hosts meet there, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.lab.processes import running
from reconciler.lab.registry import LABS
from tests.e2e.site import Site

pytestmark = pytest.mark.root

_ENDPOINTS = ["172.30.255.254:2379", "172.30.255.253:2379", "[fd30::fffe]:2379"]


@pytest.fixture
def three(site: Site) -> Site:
    path = site.tree / "cluster.yaml"
    store = f"  store: {{kind: etcd, endpoints: {_ENDPOINTS}}}\n"
    path.write_text(path.read_text().replace("  store: {kind: embedded}\n", store))
    assert site.push().returncode == 0
    site.up()
    return site


def test_a_lab_runs_each_server_that_the_cluster_names_and_down_leaves_none(three: Site) -> None:
    pids = [running(folder) for folder in _servers(three)]
    assert len(pids) == len(_ENDPOINTS)
    assert None not in pids
    assert three.json("status")["state"] == "converged"
    assert three.down().returncode == 0
    assert three.left_over() == []


def test_a_server_that_was_killed_is_started_again_by_up(three: Site) -> None:
    folder = _servers(three)[0]
    pid = running(folder)
    assert pid
    os.kill(pid, signal.SIGKILL)
    _until(lambda: running(folder) is None)
    three.up()
    assert running(folder) not in (None, pid)


def _servers(site: Site) -> list[Path]:
    return sorted((LABS / f"{site.name}.etcd").glob("*"))


def _until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
