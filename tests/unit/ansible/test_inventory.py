"""The inventory, as ansible-inventory prints it: hosts, groups and variables straight from a commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]

CLUSTER = "apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\nspec: {store: {kind: embedded}}\n"
NODES = """
apiVersion: plumbline/v1
kind: Node
metadata:
  name: alpha
  labels: {rack: r1, topology.kubernetes.io/zone: a, spare: ""}
spec:
  cidrs: [10.44.0.0/24]
  addresses: [192.0.2.11]
  ansible: {user: admin, port: 2222, plumb_service: process}
---
apiVersion: plumbline/v1
kind: Node
metadata: {name: beta}
spec:
  cidrs: [10.45.0.0/24]
  addresses: [192.0.2.12]
  ansible: {connection: netns, host: lab-beta}
"""

GAMMA = """
apiVersion: plumbline/v1
kind: Node
metadata: {name: gamma}
spec: {cidrs: [10.46.0.0/24]}
"""


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "policies"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    save(path, "cluster.yaml", CLUSTER)
    save(path, "nodes.yaml", NODES)
    return path


def save(repository: Path, name: str, content: str) -> str:
    (repository / name).write_text(content)
    git(repository, "add", name)
    git(repository, "commit", "-q", "-m", name)
    return git(repository, "rev-parse", "HEAD")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "--list", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PLUMB_"))}
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env={**clean, **environment})


def inventory(*arguments: str, **environment: str) -> dict[str, Any]:
    done = run(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout, object_hook=lambda one: one.get("__ansible_unsafe", one))
    return found


def test_hosts_are_nodes_and_groups_their_labels(repository: Path) -> None:
    found = inventory(PLUMB_REPOSITORY=str(repository))
    assert found["plumb"]["hosts"] == ["alpha", "beta"]
    assert found["cluster_demo"]["hosts"] == ["alpha", "beta"]
    assert found["rack_r1"]["hosts"] == ["alpha"]
    assert found["topology_kubernetes_io_zone_a"]["hosts"] == ["alpha"]
    assert found["spare"]["hosts"] == ["alpha"]


def test_variables_come_from_the_manifest_under_the_names_that_ansible_has(repository: Path) -> None:
    hosts = inventory(PLUMB_REPOSITORY=str(repository))["_meta"]["hostvars"]
    alpha, beta = hosts["alpha"], hosts["beta"]
    assert (alpha["ansible_host"], alpha["ansible_user"], alpha["ansible_port"]) == ("192.0.2.11", "admin", 2222)
    assert alpha["plumb_service"] == "process"
    assert (beta["ansible_connection"], beta["ansible_host"], beta["plumb_node"]) == ("netns", "lab-beta", "beta")


def test_every_host_knows_the_commit_that_was_read(repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    save(repository, "more.yaml", GAMMA)
    by_extra = inventory("-e", f"plumb_repository={repository}", "-e", f"plumb_revision={first}", PLUMB_REVISION="main")
    variables = by_extra["_meta"]["hostvars"]["alpha"]
    assert variables["plumb_commit"] == first
    assert variables["plumb_repository"] == str(repository)
    assert "gamma" in inventory(PLUMB_REPOSITORY=str(repository))["plumb"]["hosts"]


def test_waves_are_one_host_and_then_all_unless_the_manifest_says_otherwise(repository: Path) -> None:
    def waves() -> dict[str, list[str]]:
        found = inventory(PLUMB_REPOSITORY=str(repository))
        return {name: group["hosts"] for name, group in found.items() if name.startswith("plumb_wave_")}

    save(repository, "rest.yaml", GAMMA)
    assert waves() == {"plumb_wave_01": ["alpha"], "plumb_wave_02": ["beta", "gamma"]}
    save(repository, "cluster.yaml", CLUSTER.replace("spec: {", "spec: {rollout: {waves: [2, 1%, 50%]}, "))
    assert waves() == {"plumb_wave_01": ["alpha", "beta"], "plumb_wave_02": ["gamma"]}


def test_a_relative_repository_starts_at_the_inventory_file(repository: Path, tmp_path: Path) -> None:
    source = tmp_path / "plumb.yml"
    source.write_text("plugin: plumb_nodes\nrepository: policies\n")
    assert inventory("-i", str(source))["plumb"]["hosts"] == ["alpha", "beta"]


def test_a_commit_that_is_wrong_is_reported_with_file_and_line(repository: Path) -> None:
    save(repository, "nodes.yaml", NODES.replace("10.45.0.0/24", "10.45.0.0/240"))
    done = run(PLUMB_REPOSITORY=str(repository))
    assert done.returncode != 0
    assert "nodes.yaml:16:" in done.stderr


def test_a_repository_that_is_not_there_is_an_error_and_not_an_empty_inventory(tmp_path: Path) -> None:
    done = run(PLUMB_REPOSITORY=str(tmp_path / "nowhere"))
    assert done.returncode != 0
    assert "is not a git repository" in done.stderr
