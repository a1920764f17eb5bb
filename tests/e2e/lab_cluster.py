"""A cluster in a lab: three hosts with a daemon each, three etcd servers in the underlay, one flat network.

    alpha    client, tester     app: client, app: stranger
    beta     web                app: web: clients may use UDP and TCP PORTS, nobody else anything
    gamma    spare, stranger    app: client, app: stranger

Node N has 172.30.0.N and fd30::N and its workloads 10.6N.0.10 and up. What a test breaks it has to mend.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.config import PIN_ROOT, RUN_ROOT
from reconciler.daemon.client import Client
from reconciler.kernel import netns
from reconciler.lab import etcd
from reconciler.lab.processes import LOG_FILE, running
from reconciler.lab.registry import LABS
from reconciler.model.cluster import StoreChoice, StoreKind
from tests.e2e.daemon_host import CHECKOUT, NAMESPACE, NETNS, cluster, document, policy, until

PORTS = (9000, 9001)
SERVERS = [f"172.30.255.{last}" for last in (251, 252, 253)]
ETCD_PORT = 2379
CHOICE = StoreChoice(StoreKind.ETCD, tuple(f"{address}:{ETCD_PORT}" for address in SERVERS))
WEB = {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}
_AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "gc.auto=0")
_numbers = itertools.count()

Finished = subprocess.CompletedProcess[str]


class LabCluster:
    """`nodes` in order; the name of a node's manifest is `node(NODE)`, since a lab's nodes are this machine's."""

    nodes = ("alpha", "beta", "gamma")

    def __init__(self, directory: Path) -> None:
        self.name = f"pt-k{os.getpid()}-{next(_numbers)}"
        self.tree = directory / "policies"
        self.where: dict[str, tuple[str, str]] = {}  # workload -> node, path of its namespace

    # Up and down

    def make(self, **spec: Any) -> None:
        """`spec`: of the Cluster. Up and converged."""
        self.tree.mkdir()
        self.git("init", "-q", "-b", "main")
        store = {"kind": "etcd", "endpoints": list(CHOICE.endpoints), **spec.pop("store", {})}
        self.write("cluster.yaml", cluster(store=store, **{"network": {"mode": "vxlan"}, **spec}) + NAMESPACE)
        for node in self.nodes:
            self.write(f"nodes/{node}.yaml", self.manifest(node))
        for workload, node, app in (
            ("client", "alpha", "client"),
            ("tester", "alpha", "stranger"),
            ("web", "beta", "web"),
            ("spare", "gamma", "client"),
            ("stranger", "gamma", "stranger"),
        ):
            self.add(workload, node, app)
        self.write("web.yaml", policy("web", "web", **WEB))
        self.commit()
        self.up()
        self.heard()

    def up(self, **environment: str) -> None:
        """What is missing is started."""
        done = self.plumb("lab", "up", str(self.tree), "--name", self.name, environment=environment)
        assert done.returncode == 0, done.stderr

    def remove(self) -> list[str]:
        """Takes everything away, and returns what was not."""
        for pid in [*self._pids(), *(running(self.kept(server)) for server in range(len(SERVERS)))]:
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
        done = self.plumb("lab", "down", "--name", self.name)
        for path in NETNS.glob(f"{self.name}-w-*"):  # added while it was up
            netns.remove(str(path))
        spaces = [*NETNS.glob(f"{self.name}*")]
        folders = [root / self.node(node) for root in (RUN_ROOT, PIN_ROOT) for node in self.nodes]
        kept = [*LABS.glob(f"{self.name}*")]
        said = [done.stderr] if done.returncode else []
        return [*said, *(str(path) for path in (*spaces, *folders, *kept) if path.exists())]

    def _pids(self) -> list[int | None]:
        return [running(RUN_ROOT / self.node(node)) for node in self.nodes]

    # Hosts

    def node(self, node: str) -> str:
        return f"{self.name}-{node}"

    def space(self, node: str) -> str:
        """Path of the host's namespace."""
        return f"{NETNS}/{self.name}-{self.node(node)}"

    @property
    def underlay(self) -> str:
        return f"{NETNS}/{self.name}_underlay"

    def client(self, node: str) -> Client:
        return Client(RUN_ROOT / self.node(node) / "plumb.sock")

    def status(self, node: str) -> dict[str, Any]:
        return dict(self.client(node).get("/v1/status"))

    def store(self, node: str) -> str:
        """`connected`, `unreachable` or `refused`, as the node sees it."""
        return str(self.status(node)["store"]["state"])

    def pid(self, node: str) -> int:
        pid = running(RUN_ROOT / self.node(node))
        assert pid is not None
        return pid

    def kill(self, node: str) -> None:
        """The daemon of that node, without a warning."""
        os.kill(self.pid(node), signal.SIGKILL)
        until(lambda: running(RUN_ROOT / self.node(node)) is None, f"the daemon of {node} has ended")

    def converged(self, commit: str, *nodes: str) -> None:
        """Until these nodes (all, if none is named) run the commit."""
        for node in nodes or self.nodes:
            until(lambda node=node: self.status(node)["commit"] == commit, f"{node} runs {commit}")  # type: ignore[misc]

    def heard(self, *nodes: str) -> None:
        """Until these nodes (all, if none is named) know every workload's identity by its addresses."""
        wanted = {one: self.identity(workload) for workload in self.where for one in self.addresses(workload)}
        for node in nodes or self.nodes:
            until(lambda node=node: wanted.items() <= self.known(node).items(), f"{node} knows {wanted}")  # type: ignore[misc]

    def known(self, node: str) -> Mapping[str, int]:
        """Address or CIDR -> identity, as packets on that node are judged."""
        rows = self.client(node).get("/v1/tables/ipcache")
        return {row["key"]: int(row["row"]["identity"].split()[0]) for row in rows}

    def identity(self, workload: str) -> int:
        """By the host that it is on."""
        return int(self._endpoint(workload)["identity"])

    # Workloads

    def inside(self, workload: str) -> str:
        return self.where[workload][1]

    def addresses(self, workload: str) -> list[str]:
        return list(self._endpoint(workload)["addresses"])

    def _endpoint(self, workload: str) -> dict[str, Any]:
        found = self.client(self.where[workload][0]).get("/v1/endpoints")
        return next(dict(one) for one in found if one["workload"] == f"default/{workload}")

    def add(self, workload: str, node: str, app: str) -> None:
        """To the work tree; its namespace on that node is there at once."""
        path = f"{NETNS}/{self.name}-w-{node}-{workload}"
        if not Path(path).exists() and Path(self.underlay).exists():
            netns.create(path)
            self.ip(path, "link", "set", "lo", "up")
        self.where[workload] = (node, path)
        spec = {"node": self.node(node), "netns": path}
        self.write(f"workloads/{workload}.yaml", document("Workload", workload, spec, {"app": app}))

    def drop(self, workload: str) -> None:
        """From the work tree."""
        (self.tree / f"workloads/{workload}.yaml").unlink()
        del self.where[workload]

    def manifest(self, node: str, **spec: Any) -> str:
        number = self.nodes.index(node) + 1
        addresses, cidrs = [self.address(node), f"fd30::{number}"], [f"10.6{number}.0.0/24", f"fd6{number}::/112"]
        return document("Node", self.node(node), {"addresses": addresses, "cidrs": cidrs, **spec})

    # Git

    def write(self, path: str, text: str) -> None:
        (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / path).write_text(text)

    def git(self, *arguments: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        command = ["git", *_AUTHOR, "-C", str(self.tree), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"test {next(_numbers)}")
        return self.git("rev-parse", "HEAD")

    @contextmanager
    def restored(self) -> Iterator[None]:
        """At the end every host is at a new commit, which has what there was before."""
        before, where = self.git("rev-parse", "HEAD"), dict(self.where)
        yield
        self.git("read-tree", "-u", "--reset", before)
        self.where = where
        self.converged(self.commit())
        self.heard()

    # etcd

    def kept(self, server: int) -> Path:
        return etcd.directory(self.name) / f"etcd-{server + 1}"

    def signal_etcd(self, number: int, *servers: int) -> None:
        """All servers, if none is named."""
        for server in servers or range(len(SERVERS)):
            pid = running(self.kept(server))
            assert pid is not None
            os.kill(pid, number)

    def kill_etcd(self, *servers: int) -> None:
        self.signal_etcd(signal.SIGKILL, *servers)
        for server in servers or range(len(SERVERS)):
            until(lambda server=server: running(self.kept(server)) is None, "the server has ended")  # type: ignore[misc]

    def wipe_etcd(self) -> None:
        """Of servers that do not run."""
        for server in range(len(SERVERS)):
            shutil.rmtree(self.kept(server) / "data")

    def start_etcd(self) -> None:
        """Those servers that do not run."""
        etcd.start_servers(etcd.directory(self.name), self.underlay, etcd.servers(CHOICE))

    def etcd(self, server: int, path: str, **body: Any) -> dict[str, Any]:
        """An answer of etcd's own JSON interface (etcd Documentation/dev-guide/api_grpc_gateway.md)."""
        with netns.inside(self.underlay):
            opened = socket.create_connection((SERVERS[server], ETCD_PORT), 2)
        connection = http.client.HTTPConnection(SERVERS[server], ETCD_PORT)
        connection.sock = opened
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(body))
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def leader(self) -> int:
        """Which server leads."""
        for server in range(len(SERVERS)):
            said = self.etcd(server, "maintenance/status")
            if said["leader"] == said["header"]["member_id"]:
                return server
        raise AssertionError("nobody leads")

    def compact(self) -> None:
        """Everything up to now is forgotten."""
        key = b64encode(b"/").decode()
        revision = self.etcd(0, "kv/range", key=key)["header"]["revision"]
        self.etcd(0, "kv/compaction", revision=revision, physical=True)

    def address(self, node: str) -> str:
        """On the underlay."""
        return f"172.30.0.{self.nodes.index(node) + 1}"

    @contextmanager
    def cut_off_from_etcd(self, node: str) -> Iterator[None]:
        """The servers' answers do not reach that node, while hosts reach each other."""
        rules = [["from", server, "to", self.address(node), "blackhole", "prio", "10"] for server in SERVERS]
        for rule in rules:
            self.ip(self.underlay, "rule", "add", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self.ip(self.underlay, "rule", "del", *rule)

    @contextmanager
    def cut(self, one: str, other: str) -> Iterator[None]:
        """Between these two hosts nothing passes, while both reach everybody else (bridge(8), isolated)."""
        ports = [self._port_name(node) for node in (one, other)]
        for port in ports:
            self._bridge("link", "set", "dev", port, "isolated", "on")
        try:
            yield
        finally:
            for port in ports:
                self._bridge("link", "set", "dev", port, "isolated", "off")

    def _port_name(self, node: str) -> str:
        index = self.ip(self.space(node), "-o", "link", "show", "eth0").split("@if")[1].split(":")[0]
        found = self.ip(self.underlay, "-o", "link", "show").splitlines()
        return next(line.split()[1].split("@")[0] for line in found if line.startswith(f"{index}:"))

    # Commands

    def plumb(self, *arguments: str, node: str = "alpha", environment: Mapping[str, str] | None = None) -> Finished:
        own = {"PYTHONPATH": str(CHECKOUT), "PLUMB_NODE": self.node(node), **(environment or {})}
        command = [sys.executable, "-m", "reconciler.cli", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **own}, timeout=120
        )

    def spawn(self, config: Path, space: str) -> subprocess.Popen[bytes]:
        """A daemon that is none of the lab's, in a namespace; its log is beside its configuration."""
        command = [sys.executable, "-m", "reconciler.cli", "--config", str(config), "daemon"]
        with config.with_suffix(".log").open("ab") as log, netns.inside(space):
            return subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self, node: str) -> str:
        return (RUN_ROOT / self.node(node) / LOG_FILE).read_text()

    def ip(self, space: str, *arguments: str) -> str:
        return _said("ip", "-n", Path(space).name, *arguments)

    def _bridge(self, *arguments: str) -> str:
        return _said("bridge", "-n", Path(self.underlay).name, *arguments)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def lab_cluster(directory: Path, **spec: Any) -> Iterator[LabCluster]:
    """Up and converged; nothing may be left when the block ends."""
    made = LabCluster(directory)
    try:
        made.make(**spec)
        yield made
    finally:
        left = made.remove()
    assert left == []
