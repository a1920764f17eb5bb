"""Where the demo plays: its repository, its workloads and how they reach each other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from reconciler.errors import PlumbError
from reconciler.lab.registry import the
from reconciler.lab.stage import Stage

WORK_TREE = "policies"
BARE = "policies.git"
_POLICY = Path(WORK_TREE, "policies", "web.yaml")
_BLOCKED = 124  # of timeout(1)
_GIT = {  # nothing of the user's own configuration changes what is shown
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "demo",
    "GIT_AUTHOR_EMAIL": "demo@localhost",
    "GIT_COMMITTER_NAME": "demo",
    "GIT_COMMITTER_EMAIL": "demo@localhost",
}


class Scene:
    """`name` is the lab's; its node is called NAME-host, its workloads' namespaces NAME-web and so on."""

    port = 80

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.node = f"{name}-host"
        self.stage = Stage(directory, {**_GIT, "PLUMB_NODE": self.node})
        self._addresses: dict[str, list[str]] = {}

    def rename(self, host_variables: Mapping[str, str]) -> None:
        """The example's node and namespaces get this lab's names, so that two labs can stand side by side.

        Its node gets variables for Ansible; its policy is kept aside, to be pushed later.
        """
        tree = self.stage.directory / WORK_TREE
        for path in (*tree.glob("nodes/*.yaml"), *tree.glob("workloads/*.yaml")):
            text = re.sub(r"\bnetns: (\w+)", rf"netns: {self.name}-\1", path.read_text())
            path.write_text(re.sub(r"\balpha\b", self.node, text))
        node = next(tree.glob("nodes/*.yaml"))
        node.write_text(f"{node.read_text().rstrip()}\n  ansible: {json.dumps(dict(host_variables))}\n")
        self.policy = (self.stage.directory / _POLICY).read_text()
        (self.stage.directory / _POLICY).unlink()

    def write_policy(self, text: str) -> None:
        path = self.stage.directory / _POLICY
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def commit(self, message: str) -> str:
        """Commits everything; the commit's full name."""
        self.stage.run("git", "-C", WORK_TREE, "add", "-A", quiet=True)
        self.stage.run("git", "-C", WORK_TREE, "commit", "-q", "-m", message, quiet=True)
        return self.stage.run("git", "-C", WORK_TREE, "rev-parse", "HEAD", quiet=True).strip()

    def namespace(self, workload: str) -> str:
        return the(self.name).workloads[f"default/{workload}"]

    def learn_addresses(self) -> None:
        found = json.loads(self.stage.plumb("endpoint", "list", "-o", "json", quiet=True))
        self._addresses = {one["workload"].rpartition("/")[2]: one["addresses"] for one in found}

    def addresses(self, workload: str) -> list[str]:
        return self._addresses[workload]

    def try_connect(self, workload: str, opens: bool) -> None:
        """Connects from a workload to `web` over each family; raises PlumbError when that is not as expected."""
        for address in self.addresses("web"):
            attempt = ("timeout", "1", "bash", "-c", f"</dev/tcp/{address}/{self.port}")
            arguments = ("lab", "exec", workload, "--", *attempt)
            self.stage.plumb(*arguments, expect=0 if opens else _BLOCKED)
            self.stage.tell(f"exit {0 if opens else _BLOCKED}: {'connected' if opens else 'no answer'}")

    def pins(self) -> Path:
        return Path("/sys/fs/bpf/plumb") / self.node

    def expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise PlumbError(otherwise)
