"""Hosts of one cluster that may be at different commits: each has a daemon, and follows a branch of its own.

They share a store: etcd, in the namespace of the wire. What a client of that segment sees meanwhile is asked all the
time by `Asking`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from reconciler.config import Config
from reconciler.daemon.client import Client
from reconciler.kernel import netns
from tests.e2e.client_outside import LOAD_BALANCER, Servers, connected, set_out
from tests.e2e.daemon_host import CHECKOUT, DEADLINE_S, NAMESPACE, cluster, until
from tests.e2e.direct_hosts import ROUTES, SERVICES, manifests
from tests.e2e.hosts import STRANGER, Hosts
from tests.e2e.offloads import TX_CHECKSUMS, switch
from tests.unit.store.etcd_server import EtcdServer

ETCD = f"10.98.0.{STRANGER}"


class HostsApart(Hosts):
    """Two hosts as in hosts.py. `far` of direct_hosts.py has its backend on the second one."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 2)
        self.etcd = EtcdServer(directory / "etcd", address=ETCD, within=("nsenter", f"--net={self.space('wire')}"))
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}

    def remove(self) -> list[str]:
        for number in [*self._daemons]:
            self.end(number)
        self.etcd.kill()
        return super().remove()

    def start(self) -> None:
        """At a first commit, which has the services."""
        self.etcd.launch()
        until(self._etcd_listens, "etcd listens")
        self.write("services.yaml", manifests(self))
        commit = self.commit_of("none")
        for number in self.numbers:
            self.follow(number, commit)
            self.begin(number)
            self.wait_for(number, commit)

    def _etcd_listens(self) -> bool:
        with netns.inside(self.space("wire")), socket.socket() as probe:
            return probe.connect_ex((ETCD, self.etcd.port)) == 0

    # Daemons

    def begin(self, number: int) -> None:
        config = self.config(number)
        folder = self.directory / f"h{number}"
        folder.mkdir(exist_ok=True)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump({**_said(config), "ref": f"refs/heads/h{number}"}))
        command = [sys.executable, "-m", "reconciler.cli", "--config", str(path), "daemon"]
        with (folder / "daemon.log").open("ab") as log, netns.inside(self.space(f"h{number}")):
            self._daemons[number] = subprocess.Popen(
                command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self.client(number).answers, "the daemon answers")

    def end(self, number: int) -> None:
        daemon = self._daemons.pop(number)
        daemon.terminate()
        assert daemon.wait(DEADLINE_S) == 0

    def client(self, number: int) -> Client:
        return Client(self.config(number).socket)

    # Commits

    def commit_of(self, way: str, **spec: Any) -> str:
        """A commit that has this `directReturn`; nobody follows it yet."""
        store = {"kind": "etcd", "endpoints": [self.etcd.endpoint]}
        services = {**SERVICES, "directReturn": way}
        self.write("cluster.yaml", cluster(store=store, network=ROUTES, services=services, **spec) + NAMESPACE)
        return self.commit()

    def go(self, number: int, way: str, **spec: Any) -> None:
        """One of the hosts is brought to such a commit."""
        commit = self.commit_of(way, **spec)
        self.follow(number, commit)
        self.wait_for(number, commit)

    def follow(self, number: int, commit: str) -> None:
        self.git("branch", "-f", f"h{number}", commit)

    def wait_for(self, number: int, commit: str) -> None:
        until(lambda: self.client(number).get("/v1/status")["commit"] == commit, f"h{number} is at {commit}")

    # What the first host says

    def is_direct(self) -> bool:
        """Whether the backend of the service answers directly what comes to the first host."""
        found = next(one for one in self.client(1).get("/v1/services") if one["service"] == "default/far")
        [direct] = {one["direct"] for port in found["ports"] for one in port["backends"]}
        return bool(direct)

    def taken(self, number: int) -> str:
        """What the first host knows of a node."""
        found = next(one for one in self.client(1).get("/v1/nodes") if one["node"] == f"h{number}")
        return str(found["direct_return"])


def _said(config: Config) -> dict[str, Any]:
    own = ("node", "repository", "state_directory", "run_directory", "pin_root")
    return {name: str(getattr(config, name)) for name in own}


class Asking:
    """A client outside that makes one connection after the other, by the first host, until the block ends.

    `seen`: whom the backend saw, in order. `lost`: what went wrong.
    """

    def __init__(self, hosts: Hosts) -> None:
        self.seen: list[str] = []
        self.lost: list[str] = []
        self._hosts = hosts
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                with connected(self._hosts, LOAD_BALANCER[4], 80) as found:
                    assert found.talks()
                    self.seen.append(found.seen)
            except OSError as error:
                self.lost.append(str(error))


@contextmanager
def hosts_apart(directory: Path) -> Iterator[HostsApart]:
    """At one commit without direct return, and the backends serve; nothing may be left when the block ends.

    The client makes its checksums itself, so that XDP takes its packets.
    """
    hosts = HostsApart(directory)
    try:
        hosts.make()
        hosts.start()
        with ExitStack() as stack:
            set_out(hosts)
            switch(hosts.space("wire"), "br0", TX_CHECKSUMS, on=False)
            Servers(hosts, stack)
            yield hosts
    finally:
        left = hosts.remove()
    assert left == []
