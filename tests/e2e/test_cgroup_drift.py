"""A workload's cgroup under the eyes of the daemon: it comes, goes, comes back, and loses its programs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.kernel.cgroups import cgroup_mount
from reconciler.model.datapath import SocketHook
from tests.e2e.daemon_host import DaemonHost, made_host, until

pytestmark = pytest.mark.root
CGROUP = f"pt-{os.getpid()}-drift"
HOOKS = len(SocketHook)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    """Its workload names a cgroup that is not there."""
    try:
        with made_host(tmp_path_factory.mktemp("cgroup"), "web") as made:
            made.write("workloads/web.yaml", made.workload("web", cgroup=CGROUP))
            made.wait_for(made.commit())
            yield made
    finally:
        if (cgroup_mount() / CGROUP).exists():
            (cgroup_mount() / CGROUP).rmdir()


@pytest.fixture
def complete(host: DaemonHost) -> DaemonHost:
    (cgroup_mount() / CGROUP).mkdir(exist_ok=True)
    until(lambda: rows(host) == HOOKS, "the cgroup's programs")
    host.settle()
    return host


def rows(host: DaemonHost) -> int:
    """Programs that run on hooks of the cgroup."""
    return sum(bool(row["row"]["digest"]) for row in host.client.get("/v1/tables/cgroups"))


def test_status_names_a_cgroup_that_is_not_there(host: DaemonHost) -> None:
    [absent] = host.status()["absent"]
    assert (absent["workload"], absent["cgroup"], absent["path"]) == ("default/web", CGROUP, "workloads/web.yaml")
    assert f"workload default/web: cgroup {CGROUP} is missing" in host.plumb("status").stdout


def test_a_cgroup_that_comes_gets_its_programs_without_a_commit(host: DaemonHost) -> None:
    assert rows(host) == 0
    (cgroup_mount() / CGROUP).mkdir()
    until(lambda: rows(host) == HOOKS, "the cgroup's programs")
    assert host.status()["absent"] == []


def test_a_cgroup_that_is_made_anew_gets_them_again(complete: DaemonHost) -> None:
    (cgroup_mount() / CGROUP).rmdir()
    until(lambda: rows(complete) == 0, "rows of a cgroup that went")
    (cgroup_mount() / CGROUP).mkdir()
    until(lambda: rows(complete) == HOOKS, "the cgroup's programs")


@pytest.mark.parametrize("how", ["pin", "link"])
def test_a_program_that_somebody_takes_off_is_put_back(complete: DaemonHost, how: str) -> None:
    pin = complete.config.pin_root / "links" / f"{CGROUP}-{SocketHook.CONNECT4}"
    if how == "pin":
        pin.unlink()
    else:
        with held(syscalls.get(str(pin))) as link:
            programs.detach(link)
    until(lambda: pin.exists() and rows(complete) == HOOKS, "the program that was taken off")
