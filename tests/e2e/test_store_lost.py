"""A store that comes back with less than it had: hosts that live on keep what they were given, and say it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.store.protocol import root
from tests.e2e.daemon_host import until
from tests.e2e.joined_hosts import Joined, joined, learns

pytestmark = pytest.mark.root

WITHIN_S = 30.0
POOLS = [{"cidr": "10.46.0.0/16", "nodePrefix": 24}, {"cidr": "fd46::/96", "nodePrefix": 112}]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Joined]:
    """alpha and beta, whose CIDRs are of the cluster's pools; the first of alpha's workloads is gone again."""
    cluster = {"store": {"kind": "etcd"}, "network": {"mode": "vxlan"}, "pools": POOLS}
    with joined(tmp_path, "alpha", "beta", cluster=cluster, cidrs=False) as hosts:
        for name in ("first", "client", "db"):
            hosts["alpha"].add(name)
        hosts["beta"].add("web")
        hosts.first.commit()
        hosts.start()
        hosts.commit()
        (hosts.tree / "workloads/first.yaml").unlink()
        hosts.commit()
        yield hosts


def test_an_empty_etcd_renumbers_nobody(two: Joined) -> None:
    where = {"client": "alpha", "db": "alpha", "web": "beta"}
    before = given(two)
    addresses = {name: two[node].addresses(name) for name, node in where.items()}
    two.etcd.kill()
    shutil.rmtree(two.etcd.folder / "data")
    start_etcd(two)
    until(lambda: given(two) == before, "the store has again what was given", WITHIN_S)
    until(
        lambda: {"alpha", "beta"} == {key.split("/")[0] for key in stored(two, "endpoints/")}, "both are back", WITHIN_S
    )
    two.commit()
    assert {name: two[node].addresses(name) for name, node in where.items()} == addresses
    assert given(two) == before


def test_an_older_etcd_is_told_of_endpoints_since_then(two: Joined, tmp_path: Path) -> None:
    data, backup = two.etcd.folder / "data", tmp_path / "backup"
    two.etcd.kill()
    shutil.copytree(data, backup)
    start_etcd(two)
    two["beta"].add("late")
    (two.tree / "workloads/db.yaml").unlink()
    two.commit()
    late, identity = two["beta"].addresses("late")[0], two["beta"].endpoint("late")["identity"]
    learns(two["alpha"], late, identity)
    before = stored(two, "endpoints/").keys()
    two.etcd.kill()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    start_etcd(two)
    until(lambda: stored(two, "endpoints/").keys() == before, "the store has the endpoints of now", WITHIN_S)
    learns(two["alpha"], late, identity)


def start_etcd(two: Joined) -> None:
    two.etcd.again()
    two.etcd.wait()


def stored(two: Joined, section: str) -> dict[str, bytes]:
    """Key, without what all begin with, -> value."""
    prefix = root(two.name) + section
    with two.etcd.client() as client:
        return {about.key.decode().removeprefix(prefix): value for value, about in client.get_prefix(prefix)}


def given(two: Joined) -> dict[str, object]:
    """What nodes and their workloads have."""
    found = stored(two, "node-cidrs/nodes/") | stored(two, "addresses/")
    return {key: json.loads(value) for key, value in found.items()}
