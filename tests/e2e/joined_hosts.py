"""Hosts of one cluster for tests: each a namespace with a daemon of its own, all on one repository and one store.

They share an underlay: a bridge in a namespace of its own, with a leg in the tests' namespace, where etcd listens.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.e2e.daemon_host import NAMESPACE, DaemonHost, document, make_namespace, until
from tests.unit.store.etcd_server import EtcdServer

_HIGH, _LOW = divmod(os.getpid() % 512, 256)
UNDERLAY = f"198.{18 + _HIGH}.{_LOW}" + ".{}"  # RFC 2544: for tests of networks
HERE = UNDERLAY.format(254)


class JoinedHost(DaemonHost):
    """One node of the cluster. `number` is its place, from 1 on."""

    def __init__(self, directory: Path, tree: Path, node: str, number: int) -> None:
        super().__init__(directory, ())
        self.node = node
        self.number = number
        self.tree = tree
        self.config = replace(self.config, node=node, repository=tree)

    @property
    def address(self) -> str:
        return UNDERLAY.format(self.number)

    def manifest(self, cidrs: bool = True, **spec: Any) -> str:
        given = {"cidrs": [f"10.46.{self.number}.0/24", f"fd46:{self.number}::/112"]} if cidrs else {}
        return document("Node", self.node, {"addresses": [self.address], **given, **spec})

    def workload(self, name: str, **spec: Any) -> str:
        labels = spec.pop("labels", {"app": name})
        return document("Workload", name, {"node": self.node, "netns": self.inside(name), **spec}, labels)

    def add(self, name: str, **spec: Any) -> None:
        """A workload's namespace and manifest; the commit is the caller's."""
        make_namespace(self.inside(name))
        self.write(f"workloads/{name}.yaml", self.workload(name, **spec))

    def known(self) -> dict[str, int]:
        """Address or CIDR -> identity, as packets here are judged."""
        rows = self.client.get("/v1/tables/ipcache")
        return {row["key"]: int(row["row"]["identity"].split()[0]) for row in rows}

    def store(self) -> dict[str, Any]:
        return dict(self.status()["store"])


class Joined:
    """`hosts` by name; the first one's methods for git and manifests serve all."""

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[str],
        cluster: dict[str, Any],
        *,
        name: str = "demo",
        beside: Joined | None = None,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.name = name
        self.beside = beside
        self.cluster = deepcopy(cluster)
        self.settings = settings
        tree = directory / "policies"
        self.hosts = {
            node: JoinedHost(_folder(directory / node), tree, node, place)
            for place, node in enumerate(nodes, 1 + (len(beside.hosts) if beside else 0))
        }
        self.first = next(iter(self.hosts.values()))
        self.tree = tree
        self.underlay = beside.underlay if beside else f"{self.first.name}-u"
        self.leg = f"pt-u{os.getpid()}"
        self.etcd = EtcdServer(directory / "etcd", address=HERE)

    def __getitem__(self, node: str) -> JoinedHost:
        return self.hosts[node]

    def make(self, cidrs: bool = True) -> None:
        if self.cluster.get("store", {}).get("kind") == "etcd":
            self.cluster["store"] |= {"endpoints": [self.etcd.endpoint]}
        if self.beside is None:
            self._make_wire()
        self.tree.mkdir()
        self.first.git("init", "-q", "-b", "main")
        self.first.write("cluster.yaml", document("Cluster", self.name, self.cluster))
        self.first.write("namespace.yaml", NAMESPACE)
        for host in self.hosts.values():
            self.connect(host)
            host.configure(**{key: str(one) for key, one in self.settings.items()})
            self.first.write(f"nodes/{host.node}.yaml", host.manifest(cidrs))

    def _make_wire(self) -> None:
        make_namespace(f"/run/netns/{self.underlay}")
        self.first.ip("link", "add", "br0", "type", "bridge", netns=self.underlay)
        self.first.ip("link", "set", "br0", "up", netns=self.underlay)
        run(f"ip link add {self.leg} type veth peer name here netns {self.underlay}")
        run(f"ip address add {HERE}/24 dev {self.leg}")
        run(f"ip link set {self.leg} up")
        self.first.ip("link", "set", "here", "master", "br0", "up", netns=self.underlay)

    def connect(self, host: JoinedHost) -> None:
        make_namespace(host.path)
        port = f"h{host.number}"
        host.ip("link", "add", port, "type", "veth", "peer", "name", "up0", "netns", host.name, netns=self.underlay)
        host.ip("link", "set", port, "master", "br0", "up", netns=self.underlay)
        host.ip("address", "add", f"{host.address}/24", "dev", "up0")
        host.ip("link", "set", "up0", "up")

    def start(self) -> None:
        if "endpoints" in self.cluster.get("store", {}):
            self.etcd.start()
        for host in self.hosts.values():
            host.start()

    def commit(self) -> str:
        """And wait until every host that runs has it."""
        commit = self.first.commit()
        for host in self.hosts.values():
            if host.daemon is not None:
                host.wait_for(commit)
        return commit

    def remove(self) -> list[str]:
        left = []
        if self.beside is None:
            run(f"ip link delete {self.leg}")
        for host in self.hosts.values():
            if host.directory.exists():
                left += host.remove()
        self.etcd.kill()
        return left


@contextmanager
def joined(directory: Path, *nodes: str, cluster: dict[str, Any] | None = None, **settings: Any) -> Iterator[Joined]:
    """Not started yet, nothing committed; nothing may be left when the block ends.

    `beside`: other hosts, with which they share the wire.
    """
    cidrs = settings.pop("cidrs", True)
    found = Joined(directory, nodes, cluster or {}, **settings)
    try:
        found.make(cidrs)
        yield found
    finally:
        left = found.remove()
    assert left == []


def learns(host: JoinedHost, address: str, identity: int | None, within_s: float = 20.0) -> None:
    """Until packets of the address are judged by this identity; None: until the address has no row of its own."""
    what = f"{host.node} takes {address} for {identity}"
    until(lambda: host.known().get(address) == identity, what, within_s)


def run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
