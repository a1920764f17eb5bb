"""site.yml on a lab: its hosts over the namespace connection, its daemons its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.fleet import CHECKOUT, Played, recap
from tests.e2e.site import Site

pytestmark = pytest.mark.root


@pytest.fixture
def lab(new_site: Callable[[], Site]) -> Site:
    """A site whose node tells Ansible that it is a lab's host, with its lab up."""
    site = new_site()
    variables = {
        "connection": "netns",
        "host": f"{site.name}-{site.node}",
        "plumb_service": "external",
        "plumb_python": sys.executable,
        "plumb_config_path": str(site.run_directory / "config.yaml"),
    }
    (node,) = site.tree.glob("nodes/*.yaml")
    node.write_text(f"{node.read_text().rstrip()}\n  ansible: {json.dumps(variables)}\n")
    assert site.push().returncode == 0
    site.up()
    return site


def play(site: Site, folder: Path, *arguments: str) -> Played:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(CHECKOUT / "playbooks" / "site.yml")]
    environment = {
        **os.environ,
        "PLUMB_REPOSITORY": str(site.bare),
        "PYTHONPATH": str(CHECKOUT),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    return Played(done.returncode, done.stdout + done.stderr, recap(done.stdout))


def test_what_was_pushed_is_there_already_and_what_was_rolled_back_is_left_alone(lab: Site, tmp_path: Path) -> None:
    pushed = play(lab, tmp_path)
    assert pushed.code == 0, pushed.output
    assert pushed.changed() == {lab.node: 0}
    lab.write("policies/more.yaml", MORE)
    assert lab.push().returncode == 0
    assert lab.plumb("rollback").returncode == 0
    kept = play(lab, tmp_path)
    assert "was rolled back" in kept.output
    assert kept.code != 0
    forced = play(lab, tmp_path, "-e", "plumb_force=true")
    assert forced.code == 0, forced.output
    assert forced.changed() == {lab.node: 1}
    assert lab.json("status")["held"] == ""
    assert play(lab, tmp_path).changed() == {lab.node: 0}


MORE = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: more, namespace: default}
spec:
  podSelector: {matchLabels: {app: stranger}}
  ingress: []
"""
