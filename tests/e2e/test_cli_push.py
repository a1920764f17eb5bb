"""From `git push` to real packets: what a push changes, what a refused one leaves, and the way back."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import netns
from reconciler.lab.processes import running, stop
from reconciler.lab.traffic import echo_server, echoes
from tests.e2e.site import PORT, Site

pytestmark = pytest.mark.root

_OPEN = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{}]
"""


@pytest.fixture
def served(lab: Site) -> Iterator[Site]:
    """A lab whose `web` listens on its port; the policy lets `client` in and `stranger` not."""
    with echo_server(lab.namespace("web"), PORT):
        yield lab


def test_a_push_changes_what_packets_may_do(served: Site) -> None:
    assert served.connects("client") == [True, True]
    assert served.connects("stranger") == [False, False]
    served.write("policies/web.yaml", _OPEN)
    assert served.push().returncode == 0
    assert served.connects("stranger") == [True, True]


def test_a_push_shows_the_plan_and_what_became_of_it(served: Site) -> None:
    served.write("policies/web.yaml", _OPEN)
    pushed = served.push()
    commit = served.git("rev-parse", "HEAD").stdout.strip()
    assert "remote:   policy: +" in pushed.stderr
    assert f"remote: {served.node}: applied {commit[:12]} in " in pushed.stderr


def test_a_push_shows_what_looks_wrong_and_goes_through(lab: Site) -> None:
    lab.write("policies/web.yaml", _OPEN.replace("app: web", "app: wbe"))
    pushed = lab.push()
    assert pushed.returncode == 0
    message = 'NetworkPolicy/default/web selects no workload: no workload is app=wbe; did you mean "web"?'
    assert f"remote: policies/web.yaml:1:1: warning: {message}" in pushed.stderr


def test_a_removed_allow_cuts_an_established_connection(served: Site) -> None:
    with netns.inside(served.namespace("client")):
        established = socket.create_connection((served.addresses("web")[0], PORT), 2)
    with established:
        assert echoes(established)
        policy = served.tree / "policies/web.yaml"
        policy.write_text(policy.read_text().replace("app: client", "app: nobody"))
        assert served.push().returncode == 0
        assert not echoes(established)


def test_a_refused_push_names_the_place_and_leaves_everything(served: Site) -> None:
    before = served.json("status")
    policy = served.tree / "policies/web.yaml"
    policy.write_text(policy.read_text().replace("port: 80", "port: 70000"))
    refused = served.push()
    assert refused.returncode == 1
    assert "remote: policies/web.yaml:14:18: port 70000 is above 65535" in refused.stderr
    assert served.json("status")["commit"] == before["commit"]
    assert served.git("ls-remote", "origin", "main").stdout.startswith(before["commit"])
    assert served.connects("client") == [True, True]


def test_a_rollback_brings_the_packets_back_and_holds_the_commit(served: Site) -> None:
    first = served.json("status")["commit"]
    served.write("policies/web.yaml", _OPEN)
    assert served.push().returncode == 0
    assert served.plumb("rollback").returncode == 0
    assert served.connects("stranger") == [False, False]
    assert served.json("status")["commit"] == first
    assert served.plumb("resume").returncode == 0
    assert [one["result"] for one in served.json("history")][:2] == ["applied", "applied"]


def test_a_plan_that_was_kept_is_applied_exactly_once(lab: Site, tmp_path: Path) -> None:
    plan = _kept_plan(lab, tmp_path)
    assert lab.plumb("apply", str(plan)).returncode == 0
    assert lab.json("status")["commit"] == json.loads(plan.read_text())["commit"]
    again = lab.plumb("apply", str(plan))
    assert again.returncode == 6
    assert "next: make the plan again: plumb plan" in again.stderr


def test_a_plan_that_was_changed_is_refused(lab: Site, tmp_path: Path) -> None:
    plan = _kept_plan(lab, tmp_path)
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "base": ""}))
    refused = lab.plumb("apply", str(plan))
    assert refused.returncode == 2
    assert "its digest does not match" in refused.stderr


def test_a_file_that_holds_no_plan_is_refused(lab: Site, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("main")
    (tmp_path / "b").write_text("[]")
    assert lab.plumb("apply", str(tmp_path / "a")).returncode == 2
    assert lab.plumb("apply", str(tmp_path / "b")).returncode == 2


def _kept_plan(lab: Site, directory: Path) -> Path:
    """Of a commit that was rolled back, so that the daemon does not apply it by itself."""
    lab.write("policies/web.yaml", _OPEN)
    assert lab.push().returncode == 0
    assert lab.plumb("rollback").returncode == 0
    made = lab.plumb("plan", "--out", str(directory / "next.plan"))
    assert made.returncode == 0, made.stderr
    return directory / "next.plan"


def test_a_host_whose_daemon_has_ended_is_asked_itself(lab: Site) -> None:
    commit = lab.json("status")["commit"]
    pid = running(lab.run_directory)
    assert pid
    stop([pid])
    assert lab.json("status")["commit"] == commit
    assert {one["workload"] for one in lab.json("endpoint", "list")} == {
        f"default/{n}" for n in ("client", "stranger", "web")
    }
    assert lab.json("map", "list")["routes"] >= 6
    assert lab.json("plan")["text"] == ""
    assert lab.plumb("suspend", "maintenance").returncode == 13


def test_the_monitor_shows_a_drop_with_the_rule_behind_it(served: Site) -> None:
    command = served.command(
        "--node", served.node, "monitor", "--type", "drop", "--from", "stranger", "-n", "1", "-o", "json"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            while monitor.poll() is None:
                served.connects("stranger")
            assert monitor.stdout
            event = json.loads(monitor.stdout.read())
        finally:
            monitor.kill()
    assert event["source"]["workload"] == "default/stranger"
    assert event["destination"]["workload"] == "default/web"
    assert event["rule"]["path"] == "policies/web.yaml"


def test_what_a_host_holds_can_be_listed(lab: Site) -> None:
    web = lab.json("endpoint", "show", "web")
    assert web["netns"] == lab.namespace("web")
    assert lab.json("identity", "show", str(web["identity"]))["workloads"] == ["default/web"]
    assert any("default/web" in str(row["key"]) for row in lab.json("map", "show", "policy"))
    assert lab.plumb("map", "show", "nothing").returncode == 2
    assert lab.plumb("identity", "show", "99999").returncode == 2


def test_features_of_this_kernel_are_listed_and_suffice(lab: Site) -> None:
    assert lab.plumb("features").returncode == 0
