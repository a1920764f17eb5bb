"""Which commit a host is at: the newest one of the branch, however it came, unless somebody holds it back."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from reconciler.errors import PlanStale, PlumbError, UsageError
from tests.e2e.daemon_host import DaemonHost, allowing, cluster, made_host, policy, until
from tests.e2e.packet_flow import lossless, stopped

pytestmark = pytest.mark.root

PORT, OTHER = 4000, 4001
MANY = 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", audit_interval_s=600) as made:
        yield made


@pytest.fixture
def host(shared: DaemonHost) -> Iterator[DaemonHost]:
    """At a commit that lets `client` reach one port of `web`; what a test held back is released in the end."""
    shared.wait_for(_allow(shared, PORT))
    shared.settle()
    yield shared
    shared.client.post("/v1/resume", {})
    shared.wait_for(shared.git("rev-parse", "refs/heads/main"))


def test_a_branch_that_moves_back_takes_the_host_along(host: DaemonHost) -> None:
    before = host.at
    host.wait_for(_allow(host, OTHER))
    host.move(before)
    host.wait_for(before)
    with lossless(host, "client", "web", PORT), stopped(host, "client", "web", OTHER):
        pass


def test_a_commit_that_changes_nothing_here_is_remembered_and_writes_nothing(host: DaemonHost) -> None:
    rows = host.rows()
    host.write("README", "for people")
    outcome = host.outcome(host.commit())
    assert (outcome["result"], outcome["counts"]) == ("applied", {})
    assert host.rows() == rows


def test_a_ref_that_is_written_again_without_moving_changes_nothing(host: DaemonHost) -> None:
    records = len(host.client.get("/v1/history", limit=1000))
    host.git("pack-refs", "--all")
    host.git("update-ref", "refs/heads/main", host.at)
    host.settle()
    assert len(host.client.get("/v1/history", limit=1000)) == records


def test_many_commits_at_once_end_at_the_newest(host: DaemonHost) -> None:
    commits = [_aside(host, OTHER + number) for number in range(MANY)]
    with stopped(host, "client", "web", OTHER + MANY):
        for commit in commits:
            host.git("update-ref", "refs/heads/main", commit)
        host.wait_for(commits[-1])
        host.settle()
    assert host.at == commits[-1]
    with lossless(host, "client", "web", OTHER + MANY - 1), stopped(host, "client", "web", PORT):
        pass


def test_a_commit_that_comes_during_a_pass_is_taken_by_the_next(host: DaemonHost) -> None:
    """The pass lasts as long as its probe waits, and is taken back after the newer commit has come."""
    good = host.tree / "cluster.yaml"
    text = good.read_text()
    probe = {"name": "in vain", "from": "default/client", "to": "192.0.2.1", "port": 9, "timeout": 1}
    good.write_text(cluster(probes=[probe]))
    bad = host.commit()
    until(lambda: (host.config.state_directory / "journal" / "open.json").exists(), "a transaction is open")
    good.write_text(text)
    newer = _allow(host, OTHER)
    host.wait_for(newer)
    taken_back, applied = reversed(host.client.get("/v1/history", limit=2))
    assert (taken_back["commit"], taken_back["result"]) == (bad, "rolled-back")
    assert (applied["commit"], applied["result"]) == (newer, "applied")


def test_a_commit_that_was_rolled_back_is_held_until_a_newer_comes(host: DaemonHost) -> None:
    before = host.at
    bad = _allow(host, OTHER)
    host.wait_for(bad)
    assert host.client.post("/v1/rollback", {})["commit"] == before
    repairs = host.status()["drift_repairs"]
    host.ip("route", "del", host.addresses("web")[0])
    until(lambda: host.status()["drift_repairs"] > repairs, "drift is repaired all the same")
    assert (host.at, host.status()["held"]) == (before, bad)
    host.stop()
    host.start()
    host.settle()
    assert (host.at, host.status()["held"], host.status()["state"]) == (before, bad, "held")
    with lossless(host, "client", "web", PORT), stopped(host, "client", "web", OTHER):
        pass
    host.wait_for(_allow(host, OTHER + 1))


def test_a_suspended_host_neither_follows_nor_repairs_until_it_is_resumed(host: DaemonHost) -> None:
    before = host.at
    assert host.client.post("/v1/suspend", {"reason": "maintenance"})["state"] == "suspended"
    address = host.addresses("web")[0]
    host.ip("route", "del", address)
    newer = _allow(host, OTHER)
    with pytest.raises(PlumbError, match="this host is suspended: maintenance") as refused:
        host.client.post("/v1/apply", {"revision": newer})
    assert refused.value.remedy == "plumb resume"
    with pytest.raises(PlumbError, match="suspended"):
        host.client.post("/v1/rollback", {})
    assert address not in host.ip("route")
    assert host.at == before
    host.client.post("/v1/resume", {})
    host.wait_for(newer)
    until(lambda: address in host.ip("route"), "the route is back")


def test_a_plan_is_applied_only_to_the_rows_that_it_was_made_from(host: DaemonHost) -> None:
    plan = host.client.post("/v1/plan", {"revision": _aside(host, OTHER)})["plan"]
    changed = copy.deepcopy(plan)
    changed["commit"] = host.at
    with pytest.raises(UsageError, match="its digest does not match"):
        host.client.post("/v1/apply", {"plan": changed})
    host.wait_for(_allow(host, OTHER + 1))
    rows = host.rows()
    with pytest.raises(PlanStale, match="from which the plan was made") as stale:
        host.client.post("/v1/apply", {"plan": plan})
    assert (stale.value.exit_code, stale.value.remedy) == (6, "make the plan again: plumb plan")
    assert host.rows() == rows


def _allow(host: DaemonHost, port: int) -> str:
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", port)]))
    return host.commit()


def _aside(host: DaemonHost, port: int) -> str:
    """A commit that no branch has yet."""
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", port)]))
    host.git("add", "-A")
    commit = host.git("commit-tree", "-m", "aside", "-p", "HEAD", host.git("write-tree"))
    host.git("reset", "-q", "--hard")
    return commit
