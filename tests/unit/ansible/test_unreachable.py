"""A host that the playbook cannot reach: its owner is told what to write, and where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
NODE = """
apiVersion: plumbline/v1
kind: Node
metadata: {name: pt-nowhere}
spec: {cidrs: [10.44.0.0/24], ansible: {connection: netns, host: pt-no-such-namespace}}
"""
CLUSTER = "apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\n"


def test_a_host_that_cannot_be_reached_is_told_with_the_fields_that_say_how(tmp_path: Path) -> None:
    (tmp_path / "nodes.yaml").write_text(NODE)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "nodes"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/site.yml", "--check"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env={**os.environ, "PLUMB_REPOSITORY": str(tmp_path), "PLUMB_REVISION": "main"},
    )
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "pt-nowhere cannot be reached: " in said
    assert f"Its Node in {tmp_path} says how" in said
    assert "`ansible: {connection: netns, host: NAMESPACE}`" in said
