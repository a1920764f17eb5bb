"""GitOps across hosts: daemons that fetch a pushed commit, wake each other up, and tell the push what became of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon_host import allowing, policy
from tests.e2e.followers import Followers, followers

pytestmark = pytest.mark.root

SELDOM_S = 3600  # no poll helps: what arrives came by the store


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followers]:
    with followers(tmp_path_factory.mktemp("followers"), "alpha", "beta", "gamma", poll_interval_s=SELDOM_S) as made:
        yield made


@pytest.fixture(autouse=True)
def _in_step(cluster: Followers) -> Iterator[None]:
    """Each test begins with all hosts at the branch's commit."""
    yield
    cluster.git("fetch", "-q", "origin")
    cluster.git("reset", "-q", "--hard", "origin/main")
    for host in cluster.hosts.values():
        host.wait_for(cluster.head())


def test_a_push_reaches_all_hosts_and_its_output_names_each(cluster: Followers) -> None:
    cluster.write("policies.yaml", policy("beta", "beta", ingress=[allowing("from", "alpha", 80)]))
    commit = cluster.commit()
    pushed = cluster.push()
    assert pushed.returncode == 0, pushed.stderr
    for node, rows in (("alpha", "no row changed"), ("beta", "policy +"), ("gamma", "no row changed")):
        assert f"remote: {node}: applied {commit[:12]} in " in pushed.stderr, pushed.stderr
        line = next(line for line in pushed.stderr.splitlines() if f"{node}: applied" in line)
        assert rows in line
    assert {host.status()["commit"] for host in cluster.hosts.values()} == {commit}
