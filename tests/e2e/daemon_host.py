"""One host for tests of the daemon: a namespace, workloads' namespaces, a repository, and the daemon as a real process.

Everything is named after the test process; `remove` takes it away and says what was left behind.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from reconciler.config import Config, make
from reconciler.daemon.client import Client
from reconciler.kernel import netns
from reconciler.lab.processes import inside_any

CHECKOUT = Path(__file__).resolve().parents[2]
NETNS, BPFFS = Path("/run/netns"), Path("/sys/fs/bpf")
NODE = "alpha"
CIDR4, CIDR6 = "10.46.0.0/24", "fd46::/112"
DEADLINE_S = 30.0
PAUSE_S = 0.005

Finished = subprocess.CompletedProcess[str]
_numbers = itertools.count()
_AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "gc.auto=0")


def until(condition: Callable[[], object], what: str, within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(PAUSE_S)


class DaemonHost:
    """`workloads` are names in namespace `default`; each has a namespace of its own and the label `app: NAME`."""

    def __init__(self, directory: Path, workloads: tuple[str, ...]) -> None:
        self.name = f"pt-f{os.getpid()}-{next(_numbers)}"
        self.path = str(NETNS / self.name)
        self.tree = directory / "policies"
        self.directory = directory
        self.workloads = workloads
        self.config: Config = make(
            NODE,
            self.tree,
            state_directory=directory / "state",
            run_directory=directory / "run",
            pin_root=BPFFS / self.name,
        )
        self.client = Client(self.config.socket)
        self.daemon: subprocess.Popen[bytes] | None = None

    # Up and down

    def make(self, **settings: Any) -> None:
        """Namespaces, configuration and a first commit; no daemon yet. `settings` go into the configuration."""
        for path in (self.path, *map(self.inside, self.workloads)):
            make_namespace(path)
        self.configure(**settings)
        self.tree.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("cluster.yaml", cluster())
        self.write("base.yaml", NAMESPACE + node())
        for name in self.workloads:
            self.write(f"workloads/{name}.yaml", self.workload(name))
        self.commit()

    def remove(self) -> list[str]:
        """Takes everything away, and returns what was not."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.stop()
        for path in NETNS.glob(f"{self.name}*"):
            netns.remove(str(path))
        shutil.rmtree(self.config.pin_root, ignore_errors=True)
        shutil.rmtree(self.directory)
        return self.left_over()

    def left_over(self) -> list[str]:
        spaces = [str(path) for path in NETNS.glob(f"{self.name}*")]
        pins = [str(path) for path in BPFFS.glob(f"{self.name}*")]
        return [*spaces, *pins, *(f"process {pid}" for pid in inside_any(spaces))]

    def configure(self, **settings: Any) -> Path:
        """The configuration, written anew."""
        own = ("node", "repository", "state_directory", "run_directory", "pin_root")
        path = self.directory / "config.yaml"
        path.write_text(yaml.safe_dump({**{name: str(getattr(self.config, name)) for name in own}, **settings}))
        return path

    # The daemon

    def start(self) -> None:
        """Returns when it answers."""
        daemon = self.daemon = self.spawn()
        until(lambda: self.client.answers() or daemon.poll() is not None, "the daemon answers")
        assert daemon.poll() is None, self.log()

    def spawn(self, *wrapped: str) -> subprocess.Popen[bytes]:
        """The daemon as a process of its own, in the host's namespace; its log is kept."""
        with (self.directory / "daemon.log").open("ab") as log:
            return subprocess.Popen(
                [*wrapped, *self.command("daemon")], cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def command(self, *arguments: str) -> list[str]:
        """`plumb` with this host's configuration, inside the host's namespace."""
        config = str(self.directory / "config.yaml")
        entered = ["nsenter", f"--net={self.path}", sys.executable, "-m", "reconciler.cli"]
        return [*entered, "--config", config, *arguments]

    def plumb(self, *arguments: str) -> Finished:
        return subprocess.run(
            self.command(*arguments), cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        code = self.daemon.wait(DEADLINE_S)
        self.daemon = None
        return code

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")

    # What it says

    def status(self) -> dict[str, Any]:
        return dict(self.client.get("/v1/status"))

    @property
    def at(self) -> str:
        """The commit that was applied last."""
        history = self.client.get("/v1/history", limit=1000)
        return next((str(record["commit"]) for record in history if record["result"] == "applied"), "")

    def outcome(self, commit: str) -> dict[str, Any]:
        return dict(self.client.get("/v1/wait", commit=commit, timeout_s=DEADLINE_S))

    def wait_for(self, commit: str) -> None:
        """Until the daemon has applied it."""
        until(lambda: self.at == commit, f"{commit} is applied")

    def settle(self) -> None:
        """Until the daemon has nothing to do and complains of nothing."""
        until(lambda: self.status()["state"] in ("converged", "held"), "the host is converged")

    def drift(self, **wanted: str) -> dict[str, Any]:
        """The newest report that says all of this, as soon as there is one."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [one for one in self.client.get("/v1/drift") if wanted.items() <= one.items()]
            return bool(found)

        until(is_there, f"drift is reported: {wanted}")
        return found[0]

    def endpoint(self, workload: str) -> dict[str, Any]:
        (found,) = (one for one in self.client.get("/v1/endpoints") if one["workload"] == f"default/{workload}")
        return dict(found)

    def device(self, workload: str) -> str:
        """The host's end of its veth pair."""
        return str(self.endpoint(workload)["device"])

    def addresses(self, workload: str) -> list[str]:
        return list(self.endpoint(workload)["addresses"])

    def rows(self, *but: str) -> dict[str, list[str]]:
        """Table -> its live rows and where they come from (not by which commit), in order; without these tables."""
        return {
            name: sorted(_told(row) for row in self.client.get(f"/v1/tables/{name}"))
            for name in self.client.get("/v1/tables")
            if name not in but
        }

    # Git

    def git(self, *arguments: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        command = ["git", *_AUTHOR, "-C", str(self.tree), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / path).write_text(text)

    def commit(self) -> str:
        """What lies in the work tree, as the branch's new commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"test {next(_numbers)}")
        return self.git("rev-parse", "HEAD")

    def move(self, commit: str) -> None:
        """The branch, with the work tree."""
        self.git("update-ref", "refs/heads/main", commit)
        self.git("reset", "-q", "--hard", commit)

    # The network

    def inside(self, workload: str) -> str:
        """The path of the workload's namespace."""
        return f"{self.path}-{workload}"

    def workload(self, name: str, **spec: Any) -> str:
        labels = spec.pop("labels", {"app": name})
        return document("Workload", name, {"node": NODE, "netns": self.inside(name), **spec}, labels)

    def ip(self, *arguments: str, netns: str = "") -> str:
        command = ["ip", "-n", Path(netns or self.path).name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout


@contextmanager
def made_host(directory: Path, *workloads: str, started: bool = True, **settings: Any) -> Iterator[DaemonHost]:
    """A host at its first commit; it must have left nothing when the block ends."""
    host = DaemonHost(directory, workloads)
    try:
        host.make(**settings)
        if started:
            host.start()
            host.wait_for(host.git("rev-parse", "HEAD"))
        yield host
    finally:
        left = host.remove()
    assert left == []


def _told(row: dict[str, Any]) -> str:
    origin = row["origin"] or {"path": "", "line": 0}
    return json.dumps([row["key"], row["row"], origin["path"], origin["line"]], sort_keys=True)


def make_namespace(path: str) -> None:
    netns.create(path)
    subprocess.run(["ip", "-n", Path(path).name, "link", "set", "lo", "up"], check=True)


# Manifests


def document(kind: str, name: str, spec: dict[str, Any], labels: dict[str, str] | None = None) -> str:
    metadata: dict[str, Any] = {"name": name} | ({"labels": labels} if labels else {})
    if kind in ("Workload", "NetworkPolicy"):
        metadata["namespace"] = "default"
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "plumbline/v1"
    return f"---\n{json.dumps({'apiVersion': version, 'kind': kind, 'metadata': metadata, 'spec': spec})}\n"


def cluster(**spec: Any) -> str:
    return document("Cluster", "demo", spec)


def node(name: str = NODE, **spec: Any) -> str:
    return document("Node", name, {"cidrs": [CIDR4, CIDR6], **spec})


NAMESPACE = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n"


def policy(name: str, subject: str, **directions: list[dict[str, Any]]) -> str:
    """Of the workloads with `app: SUBJECT`; `ingress` and `egress` are lists of rules, [] is closed."""
    spec: dict[str, Any] = {"podSelector": {"matchLabels": {"app": subject}}, **directions}
    spec["policyTypes"] = [direction.capitalize() for direction in directions]
    return document("NetworkPolicy", name, spec)


def allowing(direction: str, app: str, *ports: int, protocol: str = "UDP") -> dict[str, Any]:
    """One rule of `policy`: peers with `app: APP`, at these ports."""
    peer = {"podSelector": {"matchLabels": {"app": app}}}
    return {direction: [peer], "ports": [{"port": port, "protocol": protocol} for port in ports]}
