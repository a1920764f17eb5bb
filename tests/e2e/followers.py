"""A cluster of hosts with one shared store: the first has the repository that is pushed to, the others fetch from it.

DIRECTORY/policy, policy.git     the repository and its server side, with hooks that ask the first host's daemon
DIRECTORY/NODE/                  configuration, state, log and copy of each host
DIRECTORY/store.sqlite           the store of all of them
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from reconciler.config import Config, make
from reconciler.daemon.client import Client
from reconciler.errors import StoreError
from reconciler.host.health_netns import health_netns
from reconciler.kernel import netns
from reconciler.lab.policy_repository import set_socket
from reconciler.lab.processes import inside_any
from reconciler.lab.underlay import run_ip
from reconciler.source.hooks import init_bare
from tests.e2e.daemon_host import (
    BPFFS,
    CHECKOUT,
    DEADLINE_S,
    NAMESPACE,
    NETNS,
    cluster,
    document,
    make_namespace,
    until,
)
from tests.unit.store.etcd_server import EtcdServer

_CONFIGURED = ("node", "repository", "state_directory", "run_directory", "pin_root", "remote")
_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
_AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "gc.auto=0")
ETCD = "198.51.100.254"
_numbers = itertools.count()

Finished = subprocess.CompletedProcess[str]


def addresses(number: int) -> tuple[str, str]:
    """Of a host on the wire; that of IPv6 waits for nobody."""
    return f"198.51.100.{1 + number}/24", f"fd51::{1 + number}/64 nodad"


class Follower:
    """One host: a namespace, one workload `default/NODE`, and a daemon."""

    def __init__(self, directory: Path, tag: str, node: str, repository: Path, remote: str) -> None:
        self.node = node
        self.directory = directory / node
        self.path = str(NETNS / f"{tag}-{node}")
        self.workload = f"{self.path}-w"
        self.config: Config = make(
            node,
            repository,
            remote=remote,
            state_directory=self.directory / "state",
            run_directory=self.directory / "run",
            pin_root=BPFFS / f"{tag}-{node}",
        )
        self.client = Client(self.config.socket)
        self.daemon: subprocess.Popen[bytes] | None = None

    def make(self, store: Path, **settings: Any) -> None:
        for path in (self.path, self.workload):
            make_namespace(path)
        self.directory.mkdir()
        settings["store_file"] = str(store)
        given = {name: str(getattr(self.config, name)) for name in _CONFIGURED if getattr(self.config, name)}
        (self.directory / "config.yaml").write_text(yaml.safe_dump({**given, **settings}))

    def start(self) -> None:
        with (self.directory / "daemon.log").open("ab") as log:
            daemon = self.daemon = subprocess.Popen(
                self.command("daemon"), cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(lambda: self.client.answers() or daemon.poll() is not None, f"the daemon of {self.node} answers")
        assert daemon.poll() is None, self.log()

    def stop(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(DEADLINE_S)
        self.daemon = None

    def remove(self) -> None:
        if self.daemon is not None:
            self.stop()
        for path in (self.workload, health_netns(self.config.pin_root), self.path):
            netns.remove(path)
        shutil.rmtree(self.config.pin_root, ignore_errors=True)

    def command(self, *arguments: str) -> list[str]:
        entered = ["nsenter", f"--net={self.path}", sys.executable, "-m", "reconciler.cli"]
        return [*entered, "--config", str(self.directory / "config.yaml"), *arguments]

    def plumb(self, *arguments: str) -> Finished:
        return subprocess.run(self.command(*arguments), cwd=CHECKOUT, capture_output=True, text=True, timeout=60)

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        return dict(self.client.get("/v1/status"))

    def wait_for(self, commit: str) -> None:
        until(lambda: self.status()["commit"] == commit, f"{self.node} is at {commit}:\n{self.log()}")


class Followers:
    """The first of `nodes` is next to the repository."""

    def __init__(self, directory: Path, nodes: tuple[str, ...], etcd_ttl_s: int, spec: Mapping[str, Any]) -> None:
        self.tag = f"pt-g{os.getpid()}-{next(_numbers)}"
        self.net = str(NETNS / f"{self.tag}-net")
        within = ["nsenter", f"--net={self.net}"]
        self.ttl_s = etcd_ttl_s
        self.spec = {"network": {"mode": "vxlan"}, **spec}
        self.etcd = EtcdServer(directory / "etcd", address=ETCD, within=within) if etcd_ttl_s else None
        self.directory = directory
        self.tree, self.bare = directory / "policy", directory / "policy.git"
        self.store = directory / "store.sqlite"
        self.hosts = {
            node: Follower(
                directory,
                self.tag,
                node,
                directory / node / "copy.git" if number else self.bare,
                f"file://{self.bare}" if number else "",
            )
            for number, node in enumerate(nodes)
        }

    @property
    def first(self) -> Follower:
        return next(iter(self.hosts.values()))

    def make(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """All of them converged to a first commit. `settings`: node -> more of its configuration."""
        self.tree.mkdir()
        self.git("init", "-q", "-b", "main")
        store = {"kind": "etcd", "endpoints": [self.etcd.endpoint], "ttl": self.ttl_s} if self.etcd else {}
        self.write("cluster.yaml", cluster(store=store, health={"interval": 0.2}, **self.spec) + NAMESPACE)
        make_namespace(self.net)
        run_ip(self.net, ["link add br0 up type bridge", f"address add {ETCD}/24 dev br0"])
        if self.etcd:
            self.etcd.launch()
        for number, host in enumerate(self.hosts.values()):
            host.make(self.store, **settings.get(host.node, {}))
            self.write(f"{host.node}.yaml", self.manifests(number, host))
            self.wire(number, host)
        self.commit()
        init_bare(self.bare, self.tree)
        set_socket(self.bare, self.first.config.socket)
        for host in self.hosts.values():
            host.start()
        for host in self.hosts.values():
            host.wait_for(self.head())
        reported = "each has reported its first commit"
        until(lambda: all(self.report(node, "commit") == self.head() for node in self.hosts), reported)

    def wire(self, number: int, host: Follower) -> None:
        name = Path(host.path).name
        run_ip(self.net, [f"link add port{number} master br0 up type veth peer name wire netns {name}"])
        own = (f"address add dev wire {address}" for address in addresses(number))
        run_ip(host.path, [*own, "link set wire up"])

    def reports(self) -> dict[str, dict[str, Any]]:
        """node -> its report; nothing while the store cannot be read."""
        try:
            answer = self.first.client.get("/v1/cluster")
        except StoreError:
            return {}
        return {one["node"]: one for one in answer["nodes"]}

    def report(self, node: str, field: str) -> Any:
        """None while there is none."""
        return self.reports().get(node, {}).get(field)

    def manifests(self, number: int, host: Follower) -> str:
        cidrs = [f"10.{47 + number}.0.0/24", f"fd47:{number}::/112"]
        own = [address.partition("/")[0] for address in addresses(number)]
        node = document("Node", host.node, {"cidrs": cidrs, "addresses": own})
        return node + document("Workload", host.node, {"node": host.node, "netns": host.workload}, {"app": host.node})

    def remove(self) -> None:
        for host in self.hosts.values():
            host.remove()
        if self.etcd:
            self.etcd.kill()
        netns.remove(self.net)
        left = [*NETNS.glob(f"{self.tag}*"), *BPFFS.glob(f"{self.tag}*")]
        assert not left
        assert not inside_any([host.path for host in self.hosts.values()])

    def git(self, *arguments: str, at: Path | None = None) -> str:
        done = self.tried("git", *_AUTHOR, "-C", str(at or self.tree), *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def tried(self, *command: str) -> Finished:
        environment = {**os.environ, **_ENVIRONMENT}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    def write(self, path: str, text: str) -> None:
        (self.tree / path).write_text(text)

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"test {next(_numbers)}")
        return self.head()

    def push(self, *options: str) -> Finished:
        """Of what was committed; standard error has what the hooks said."""
        return self.tried("git", "-C", str(self.tree), "push", "-q", *options, "origin", "main")


@contextmanager
def followers(
    directory: Path, ttl_s: int = 0, spec: Mapping[str, Any] | None = None, **settings: Mapping[str, Any]
) -> Iterator[Followers]:
    """`settings` has a field for each node. `spec`: more of the Cluster's.

    With `ttl_s` their store is an etcd, where that is how long leases last.
    """
    made = Followers(directory, tuple(settings), ttl_s, spec or {})
    try:
        made.make(settings)
        yield made
    finally:
        made.remove()
