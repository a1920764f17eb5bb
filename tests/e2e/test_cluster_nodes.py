"""What befalls nodes of a cluster: wrong clocks, another address, two of one name. With traffic all the time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from reconciler.daemon.client import Client
from tests.e2e.daemon_host import BPFFS, NETNS, make_namespace, until
from tests.e2e.lab_cluster import PORTS, LabCluster, lab_cluster
from tests.e2e.packet_flow import Flow, lossless, stopped

pytestmark = pytest.mark.root

DAY = timedelta(days=1)
PAUSE_S = 0.04
ELSEWHERE, ELSEWHERE_CIDRS = "172.30.0.33", ["10.69.0.0/24", "fd69::/112"]
# The time of day is all that differs: timeouts and intervals run by other clocks (clock_gettime(2)).
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int failed = real(clock, now);

	if (!failed && clock == CLOCK_REALTIME)
		now->tv_sec += atol(getenv("SHIFT_S"));
	return failed;
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    with lab_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(made: LabCluster) -> Iterator[LabCluster]:
    """With everything running, before and after."""
    with made.restored():
        yield made
        made.up()


@pytest.fixture
def traffic(cluster: LabCluster) -> Iterator[None]:
    """From alpha to beta nothing is lost, from alpha's tester to beta nothing gets through."""
    with (
        Flow(cluster, "client", "web", PORTS[0], pause_s=PAUSE_S) as allowed,
        Flow(cluster, "tester", "web", PORTS[1], pause_s=PAUSE_S) as forbidden,
    ):
        allowed.more(50)
        yield
        allowed.more(50)
        forbidden.more(50)
    assert (allowed.lost, forbidden.arrived) == (0, 0)


@pytest.mark.usefixtures("traffic")
def test_clocks_that_are_a_day_apart_change_nothing(cluster: LabCluster, tmp_path: Path) -> None:
    with shifted(cluster, tmp_path, beta=DAY, gamma=-DAY):
        cluster.add("late", "gamma", "client")
        cluster.converged(cluster.commit())
        cluster.heard()
        served(cluster, "late")
        assert "all 3 nodes run" in cluster.plumb("status", "--cluster").stdout
        cluster.add("late", "gamma", "stranger")
        cluster.converged(cluster.commit())
        cluster.heard()
        with stopped(cluster, "late", "web", 9002):
            pass
    cluster.heard()


@pytest.mark.usefixtures("traffic")
def test_a_node_that_is_added_again_at_another_address_is_reached_there(cluster: LabCluster) -> None:
    with readdressed(cluster, "gamma"):
        with without(cluster, "gamma"):
            cluster.converged(cluster.commit(), "alpha", "beta")
        manifest = cluster.manifest("gamma", addresses=[ELSEWHERE], cidrs=ELSEWHERE_CIDRS)
        cluster.write("nodes/gamma.yaml", manifest)
        cluster.converged(cluster.commit())
        cluster.heard()
        assert cluster.addresses("spare")[0].startswith("10.69.0.")
        served(cluster, "spare")
        with stopped(cluster, "stranger", "web", 9002):
            pass


@pytest.mark.usefixtures("traffic")
def test_a_second_host_that_claims_a_nodes_name_is_refused_in_words(cluster: LabCluster, tmp_path: Path) -> None:
    with claiming(cluster, "beta", tmp_path) as claimant:
        until(lambda: claimant.get("/v1/status")["last_error"], "it is refused")
        said = claimant.get("/v1/status")["last_error"]
        assert f"node {cluster.node('beta')} is another host, at {cluster.address('beta')}" in said
        assert claimant.get("/v1/endpoints") == []
        cluster.converged(cluster.commit())
        cluster.heard()


def served(cluster: LabCluster, workload: str) -> None:
    with lossless(cluster, workload, "web", 9002):
        pass


@contextmanager
def shifted(cluster: LabCluster, directory: Path, **by: timedelta) -> Iterator[None]:
    """The daemons of these nodes take the time of day to be another one."""
    library = _clock(directory)
    for node, shift in by.items():
        cluster.kill(node)
        cluster.up(LD_PRELOAD=str(library), SHIFT_S=str(int(shift.total_seconds())))
        started = datetime.fromisoformat(cluster.status(node)["daemon"]["started"])
        assert abs(started - shift - datetime.now(started.tzinfo)) < timedelta(hours=1)
    yield
    for node in by:
        cluster.kill(node)
    cluster.up()


def _clock(directory: Path) -> Path:
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(_CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    return library


@contextmanager
def without(cluster: LabCluster, node: str) -> Iterator[None]:
    """Its manifest and those of its workloads are not in the work tree."""
    gone = [workload for workload, (home, _) in cluster.where.items() if home == node]
    paths = [cluster.tree / f"nodes/{node}.yaml", *(cluster.tree / f"workloads/{one}.yaml" for one in gone)]
    texts = [path.read_text() for path in paths]
    for path in paths:
        path.unlink()
    yield
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)


@contextmanager
def readdressed(cluster: LabCluster, node: str) -> Iterator[None]:
    """The host has another address on the underlay than before; at the end its commit has the old one again."""
    space, old = cluster.space(node), cluster.address(node)
    _move(cluster, space, old, ELSEWHERE)
    with cluster.restored():
        yield
        _move(cluster, space, ELSEWHERE, old)


def _move(cluster: LabCluster, space: str, old: str, new: str) -> None:
    cluster.ip(space, "address", "add", f"{new}/32", "dev", "eth0")
    cluster.ip(space, "route", "replace", "172.30.0.0/16", "dev", "eth0", "src", new)
    cluster.ip(space, *f"route replace default via 172.30.255.254 dev eth0 onlink src {new}".split())
    cluster.ip(space, "address", "del", f"{old}/32", "dev", "eth0")


@contextmanager
def claiming(cluster: LabCluster, node: str, directory: Path) -> Iterator[Client]:
    """A daemon on a host of its own whose configuration says that it is that node."""
    space, pins = f"{NETNS}/{cluster.name}-w-claimant", BPFFS / f"{cluster.name}-claimant"
    make_namespace(space)
    link = f"link add claimant master br0 up type veth peer name eth0 netns {Path(space).name}"
    cluster.ip(cluster.underlay, *link.split())
    cluster.ip(space, "address", "add", "172.30.0.77/16", "dev", "eth0")
    cluster.ip(space, "link", "set", "eth0", "up")
    own = {"state_directory": directory / "state", "run_directory": directory / "run", "pin_root": pins}
    given = {"node": cluster.node(node), "repository": cluster.tree, **own}
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump({name: str(value) for name, value in given.items()}))
    daemon, client = cluster.spawn(config, space), Client(directory / "run" / "plumb.sock")
    try:
        until(client.answers, "the claimant's daemon answers")
        yield client
    finally:
        daemon.terminate()
        daemon.wait(20)
        shutil.rmtree(pins, ignore_errors=True)
