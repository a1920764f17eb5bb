"""GitOps across hosts whose store is a real etcd: there, away, and back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon_host import allowing, policy, until
from tests.e2e.followers import Followers, followers

pytestmark = pytest.mark.root

SELDOM_S, OFTEN_S = 3600, 0.5
TTL_S = 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followers]:
    polls = {"alpha": {}, "beta": {"poll_interval_s": SELDOM_S}, "gamma": {"poll_interval_s": OFTEN_S}}
    with followers(tmp_path_factory.mktemp("followers"), ttl_s=TTL_S, **polls) as made:
        yield made


def test_a_push_reaches_all_hosts_by_etcd(cluster: Followers) -> None:
    cluster.write("policies.yaml", policy("beta", "beta", ingress=[allowing("from", "alpha", 80)]))
    commit = cluster.commit()
    told = cluster.push().stderr
    for node in cluster.hosts:
        assert f"remote: {node}: applied {commit[:12]} in " in told, told


def test_while_etcd_is_away_a_push_is_taken_and_hosts_look_for_themselves(cluster: Followers) -> None:
    assert cluster.etcd is not None
    cluster.etcd.kill()
    cluster.write("policies.yaml", policy("beta", "beta", ingress=[allowing("from", "alpha", 81)]))
    commit = cluster.commit()
    pushed = cluster.push()
    assert pushed.returncode == 0, pushed.stderr
    assert f"remote: alpha: applied {commit[:12]} in " in pushed.stderr
    assert "hosts elsewhere were not woken" in pushed.stderr
    cluster.hosts["gamma"].wait_for(commit)
    assert cluster.hosts["beta"].status()["commit"] != commit
    cluster.etcd.again()
    until(lambda: cluster.report("gamma", "commit") == commit, "gamma has reported")
    again = cluster.commit()
    assert cluster.push().returncode == 0
    for host in cluster.hosts.values():
        host.wait_for(again)


def test_a_host_that_is_gone_is_shown_as_away(cluster: Followers) -> None:
    beta = cluster.hosts["beta"]
    until(lambda: cluster.report("beta", "away") is False, "beta is there")
    beta.stop()
    until(lambda: cluster.report("beta", "away"), "its lease has ended")
    shown = cluster.first.plumb("status", "--cluster").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("beta")]
    assert line.split()[2] == "away"
    beta.start()
    until(lambda: cluster.report("beta", "away") is False, "beta is back")
