"""A lab: made from a repository, used, and taken down without a trace, whatever happened in between."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.kernel import netns
from reconciler.lab.processes import running
from reconciler.lab.registry import LABS, labs
from tests.e2e.site import Site

pytestmark = pytest.mark.root

_SECOND_NODE = """\
apiVersion: plumbline/v1
kind: Node
metadata: {{name: {0}-beta}}
spec:
  cidrs: [10.45.0.0/24, "fd45::/112"]
---
apiVersion: plumbline/v1
kind: Workload
metadata: {{name: far, namespace: default}}
spec:
  node: {0}-beta
  netns: {0}-far
"""


def test_a_lab_that_is_taken_down_leaves_nothing(lab: Site) -> None:
    assert lab.left_over()
    assert lab.down().returncode == 0
    assert lab.left_over() == []
    assert lab.git("-C", str(lab.bare), "config", "plumb.socket").stdout == ""


def test_taking_down_what_is_not_up_is_success(site: Site) -> None:
    assert site.down().returncode == 0


def test_a_lock_that_a_killed_command_left_goes_with_the_next_down(site: Site) -> None:
    LABS.mkdir(parents=True, exist_ok=True)
    (LABS / "lock").touch()
    assert site.down().returncode == 0
    assert labs() or not LABS.exists()


def test_processes_that_were_started_inside_end_with_the_lab(lab: Site) -> None:
    command = lab.command("lab", "exec", "--name", lab.name, "web", "--", "sleep", "600")
    process = subprocess.Popen(command)
    _until(lambda: process.pid in lab.processes())
    assert lab.down().returncode == 0
    assert process.wait(timeout=10) == -signal.SIGTERM


@pytest.mark.parametrize("stage", ["underlay", "web", "pt"])
def test_down_removes_what_a_killed_up_has_left(site: Site, stage: str) -> None:
    """Killed once a namespace of that stage is there: the underlay's, a workload's, the host's."""
    process = subprocess.Popen(
        site.command("lab", "up", str(site.bare), "--name", site.name), stderr=subprocess.DEVNULL
    )
    _until(lambda: bool(list(Path("/run/netns").glob(f"{site.name}[-_]{stage}*"))) or process.poll() is not None)
    process.kill()
    process.wait()
    assert site.down().returncode == 0
    assert site.left_over() == []


def test_up_after_a_killed_daemon_starts_it_again(lab: Site) -> None:
    pid = running(lab.run_directory)
    assert pid
    subprocess.run(["kill", "-9", str(pid)], check=True)
    _until(lambda: running(lab.run_directory) is None)
    lab.up()
    assert running(lab.run_directory) not in (None, pid)


def test_up_again_adds_the_hosts_and_workloads_of_newer_commits(lab: Site) -> None:
    lab.write("nodes/beta.yaml", _SECOND_NODE.format(lab.name))
    assert lab.push().returncode == 0
    lab.up()
    _until(lambda: _states(lab) == ["converged", "converged"])
    overview = lab.json("lab", "status", "--name", lab.name)
    assert {one["workload"]: one["node"] for one in overview["workloads"]}["default/far"] == f"{lab.name}-beta"
    ping = lab.plumb("lab", "exec", "--name", lab.name, lab.node, "--", "ping", "-c1", "-W2", "172.30.0.2")
    assert ping.returncode == 0, ping.stdout


def test_two_labs_stand_side_by_side(lab: Site, new_site: Callable[[], Site]) -> None:
    other = new_site()
    other.up()
    assert other.down().returncode == 0
    _until(lambda: lab.json("status")["state"] == "converged")


def test_a_second_lab_of_the_same_nodes_is_refused_and_leaves_the_first_alone(lab: Site) -> None:
    refused = lab.plumb("lab", "up", str(lab.bare), "--name", f"{lab.name}x")
    assert refused.returncode == 2
    assert f"node {lab.node} is in lab {lab.name}" in refused.stderr
    _until(lambda: lab.json("status")["state"] == "converged")


def test_a_workloads_namespace_that_was_there_is_used_and_stays(site: Site) -> None:
    netns.create(site.namespace("web"))
    site.up()
    assert site.down().returncode == 0
    assert site.left_over() == [site.namespace("web")]


def test_a_commands_exit_code_is_that_of_exec(lab: Site) -> None:
    assert lab.plumb("lab", "exec", "--name", lab.name, "web", "--", "sh", "-c", "exit 7").returncode == 7
    assert lab.plumb("lab", "exec", "--name", lab.name, "web", "--", "no-such-command").returncode == 2
    assert lab.plumb("lab", "exec", "--name", lab.name, "nowhere", "--", "true").returncode == 2


def test_a_repository_without_a_commit_makes_no_lab(site: Site, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "empty.git")], check=True)
    refused = site.plumb("lab", "up", str(tmp_path / "empty.git"), "--name", site.name)
    assert refused.returncode == 4
    assert site.left_over() == []


def test_a_directory_inside_a_repository_makes_no_lab(site: Site) -> None:
    refused = site.plumb("lab", "up", str(site.tree / "nodes"), "--name", site.name)
    assert refused.returncode == 4
    assert f"is inside the repository {site.tree}" in refused.stderr


def test_a_push_shows_every_hosts_plan_and_outcome(site: Site) -> None:
    site.write("nodes/beta.yaml", _SECOND_NODE.format(site.name))
    assert site.push().returncode == 0
    site.up()
    site.write("namespaces.yaml", (site.tree / "namespaces.yaml").read_text().replace("demo", "other"))
    pushed = site.push().stderr
    commit = site.git("rev-parse", "HEAD").stdout.strip()[:12]
    for host in ("alpha", "beta"):
        assert f"remote: {site.name}-{host}: plan from " in pushed
        assert f"remote: {site.name}-{host}: applied {commit} in " in pushed


def test_a_lab_that_cannot_converge_says_why_and_is_removed(site: Site) -> None:
    node = site.tree / "nodes/alpha.yaml"
    node.write_text(node.read_text().replace("10.44.0.0/24", "10.44.0.0/30"))
    assert site.push().returncode == 0
    refused = site.plumb("lab", "up", str(site.bare), "--name", site.name)
    assert refused.returncode == 7
    assert f"{site.node}: refused: 10.44.0.0/30 of {site.node} is used up" in refused.stderr
    assert site.left_over() == []


def _states(lab: Site) -> list[str]:
    """Of the hosts; `converging` now and then, while a pass looks at something."""
    return [host["state"] for host in lab.json("lab", "status", "--name", lab.name)["hosts"]]


def _until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
