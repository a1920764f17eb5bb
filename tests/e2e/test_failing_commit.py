"""A commit that fails on a host: when the daemon tries it again, and what it leaves alone meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import netns
from tests.e2e.daemon_host import (
    NAMESPACE,
    DaemonHost,
    cluster,
    document,
    made_host,
    make_namespace,
    node,
    policy,
    until,
)

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DaemonHost]:
    with made_host(tmp_path, "web", audit_interval_s=0.2) as made:
        yield made


def _tries(host: DaemonHost) -> int:
    return host.log().count("not applied")


def test_neither_audits_nor_other_peoples_namespaces_make_it_tried_again(host: DaemonHost) -> None:
    probe = {"name": "cannot hold", "from": "default/web", "to": "192.0.2.1", "port": 9, "timeout": 0.2}
    host.write("cluster.yaml", document("Cluster", "demo", {"probes": [probe]}))
    assert host.outcome(host.commit())["result"] == "failed"
    repaired = host.status()["drift_repairs"]
    make_namespace(host.inside("foreign"))
    netns.remove(host.inside("foreign"))
    host.ip("route", "del", host.addresses("web")[0])
    until(lambda: host.status()["drift_repairs"] > repaired, "drift is repaired all the same")
    assert _tries(host) == 1
    assert host.status()["state"] == "degraded"


def test_a_push_to_a_suspended_host_is_answered_with_the_reason(host: DaemonHost) -> None:
    host.client.post("/v1/suspend", {"reason": "maintenance"})
    commit = host.commit()
    outcome = host.outcome(commit)
    assert (outcome["result"], outcome["error"]) == ("suspended", "maintenance; go on with: plumb resume")
    host.client.post("/v1/resume", {})
    assert host.outcome(commit)["result"] == "applied"


def test_a_branch_that_comes_back_to_a_commit_tells_what_that_changed(host: DaemonHost) -> None:
    first = host.git("rev-parse", "HEAD")
    host.write("policies/web.yaml", policy("web", "web", ingress=[]))
    second = host.commit()
    assert host.outcome(second)["result"] == "applied"
    host.move(first)
    assert host.outcome(first)["counts"]["policy"].startswith("+0")
    host.move(second)
    assert host.outcome(second)["counts"]["policy"].endswith("-0")


def test_what_to_do_about_it_is_said_to_who_pushes_in_status_and_in_the_log(host: DaemonHost) -> None:
    host.ip("link", "add", "br1", "type", "bridge")
    host.write("base.yaml", NAMESPACE + node(devices=["br1"]))
    host.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/24"]}, xdp={"mode": "native"}))
    outcome = host.outcome(host.commit())
    assert "br1 takes no native XDP program: " in outcome["error"]
    remedy = "change what the reason says of br1, or set spec.xdp.mode of the Cluster to auto or generic"
    assert outcome["text"].endswith(f"\n  next: {remedy}")
    until(lambda: host.status()["last_remedy"] == remedy, "status says it")
    assert remedy in host.plumb("status").stdout
    assert remedy in host.log()
