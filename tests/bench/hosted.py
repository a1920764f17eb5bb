"""A host with its daemon, its workloads and the policy repository that it follows: what a user has, to be timed.

HOST namespace                 the daemon, the host ends of the veth pairs
HOST-w0, HOST-w1, ... namespaces    workloads; w0 is the server, w1 the client
DIRECTORY/policy, policy.git   the repository and its server side, with hooks
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from reconciler.config import Config, make
from reconciler.daemon.client import Client
from reconciler.host.health_netns import health_netns
from reconciler.kernel import netns
from reconciler.lab.convergence import wait_for_commit, wait_for_socket
from reconciler.lab.policy_repository import set_socket
from reconciler.lab.underlay import make_namespace
from reconciler.source.hooks import init_bare, init_repository
from tests.bench.bed import BPFFS, NETNS, PREFIX
from tests.bench.building import CHECKOUT

NODE, ELSEWHERE = "bench", "elsewhere"
WORKLOADS = 20
SERVER, CLIENT = 0, 1
_CONFIGURED = ("node", "repository", "state_directory", "run_directory", "pin_root")


class Hosted:
    """`policies` policies are there besides the one that is changed, which lets the client reach one port of the
    server; `remote` workloads are on another node."""

    def __init__(self, directory: Path, policies: int, remote: int = 0) -> None:
        self.path = str(NETNS / f"{PREFIX}-host")
        self._directory = directory
        self.work = directory / "policy"
        self.bare = directory / "policy.git"
        self._policies, self._remote = policies, remote
        self.config: Config = make(
            NODE,
            self.bare,
            state_directory=directory / "state",
            run_directory=directory / "run",
            pin_root=BPFFS / f"{PREFIX}-host",
        )
        self.client = Client(self.config.socket)
        self.daemon: subprocess.Popen[bytes] | None = None

    def inside(self, workload: int) -> str:
        return f"{self.path}-w{workload}"

    def make(self) -> None:
        """Converged to the first commit when this returns."""
        make_namespace(self.path)
        for number in range(WORKLOADS):
            make_namespace(self.inside(number))
        init_repository(self.work)
        for name in ("nodes", "policies", "workloads"):
            shutil.rmtree(self.work / name)
        self._write_manifests()
        self.allow(9)
        init_bare(self.bare, self.work)
        self.config.run_directory.mkdir()
        configuration = self._directory / "config.yaml"
        configuration.write_text(yaml.safe_dump({name: str(getattr(self.config, name)) for name in _CONFIGURED}))
        self._start(configuration)
        set_socket(self.bare, self.config.socket)
        self.wait()

    def remove(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait()
        for path in (*map(self.inside, range(WORKLOADS)), health_netns(self.config.pin_root), self.path):
            netns.remove(path)
        if self.config.pin_root.exists():
            shutil.rmtree(self.config.pin_root)

    def address(self, workload: int) -> str:
        """IPv4."""
        return str(self.endpoint(workload)["addresses"][0])

    def endpoint(self, workload: int) -> dict[str, Any]:
        (found,) = (one for one in self.client.get("/v1/endpoints") if one["workload"] == f"default/w{workload}")
        return dict(found)

    def allow(self, port: int) -> None:
        """Commit that the client may reach this UDP port of the server, and no other."""
        (self.work / "allowed.yaml").write_text(_policy("allowed", SERVER, CLIENT, port, "UDP"))
        self.git("add", "--all")
        self.git("-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", f"port {port}")

    def wait(self) -> None:
        """Until the daemon is at the newest commit of the branch."""
        wait_for_commit({NODE: self.config}, self.git("rev-parse", "origin/main"))

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.work), *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def _start(self, configuration: Path) -> None:
        """Returns when the daemon answers. Raises DaemonUnreachable with the end of its log if it ends."""
        command = [sys.executable, "-m", "reconciler.cli", "--config", str(configuration), "daemon"]
        with (self.config.run_directory / "daemon.log").open("wb") as log, netns.inside(self.path):
            self.daemon = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log)
        wait_for_socket(self.config, self.daemon)

    def _write_manifests(self) -> None:
        nodes = _node(NODE, "10.98.0.0/16") + (_node(ELSEWHERE, "10.97.0.0/16") if self._remote else "")
        (self.work / "nodes.yaml").write_text(nodes)
        (self.work / "workloads").mkdir()
        for number in range(WORKLOADS):
            text = _workload(f"w{number}", NODE, self.inside(number))
            (self.work / "workloads" / f"w{number}.yaml").write_text(text)
        for start in range(0, self._remote, 100):
            many = (f"r{number}" for number in range(start, min(start + 100, self._remote)))
            text = "".join(_workload(name, ELSEWHERE, f"/run/netns/{name}", n) for n, name in enumerate(many, start))
            (self.work / "workloads" / f"remote-{start}.yaml").write_text(text)
        (self.work / "policies").mkdir()
        for number in range(self._policies):
            text = _policy(f"p{number}", number % WORKLOADS, (number + 7) % WORKLOADS, 1024 + number, "TCP")
            (self.work / "policies" / f"p{number}.yaml").write_text(text)


@contextmanager
def hosted(policies: int, remote: int = 0) -> Iterator[Hosted]:
    with tempfile.TemporaryDirectory(prefix="pt-bench-") as directory:
        host = Hosted(Path(directory), policies, remote)
        try:
            host.make()
            yield host
        finally:
            host.remove()


def _node(name: str, cidr: str) -> str:
    return f"""---
apiVersion: plumbline/v1
kind: Node
metadata: {{name: {name}}}
spec: {{cidrs: [{cidr}]}}
"""


def _workload(name: str, node: str, path: str, number: int | None = None) -> str:
    address = "" if number is None else f", addresses: [10.97.{number // 250}.{number % 250 + 1}]"
    return f"""---
apiVersion: plumbline/v1
kind: Workload
metadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}
spec: {{node: {node}, netns: {path}{address}}}
"""


def _policy(name: str, subject: int, peer: int, port: int, protocol: str) -> str:
    return f"""---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  podSelector: {{matchLabels: {{app: w{subject}}}}}
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app: w{peer}}}}}}}]
      ports: [{{port: {port}, protocol: {protocol}}}]
"""
