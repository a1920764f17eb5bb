"""The etcd of a lab: one server for each endpoint that the Cluster names, in the underlay, which gets their addresses.

    /run/plumb/labs/NAME.etcd/etcd-N/    data, log and pid of a server

Servers speak to each other over the underlay's loopback, to hosts without TLS. A server that somebody has killed is
started again, on its data, by the next `plumb lab up`.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from reconciler.errors import StoreError, UsageError
from reconciler.kernel import netns
from reconciler.lab.processes import end_of_log, running, start
from reconciler.lab.registry import LABS
from reconciler.model.cluster import StoreChoice

START_TIMEOUT_S = 30.0
_PAUSE_S = 0.02
_ANSWER_S = 1.0
_FIRST_PEER_PORT = 12380


@dataclass(frozen=True, slots=True)
class Server:
    """`number` counts from 0."""

    number: int
    address: IPv4Address | IPv6Address
    port: int

    @property
    def name(self) -> str:
        return f"etcd-{self.number + 1}"

    @property
    def peer(self) -> str:
        return f"http://127.0.0.1:{_FIRST_PEER_PORT + self.number}"

    @property
    def client(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"http://{host}:{self.port}"


def servers(choice: StoreChoice) -> tuple[Server, ...]:
    """Raises UsageError for an endpoint that is no address: nobody resolves names in a lab."""
    return tuple(_server(number, endpoint) for number, endpoint in enumerate(choice.endpoints))


def directory(lab: str) -> Path:
    return LABS / f"{lab}.etcd"


def start_servers(kept: Path, underlay: str, planned: Sequence[Server]) -> None:
    """Those that do not run; returns when each of them has a leader. `kept`: the directory of all of them.

    Raises UsageError, StoreError.
    """
    if planned and shutil.which("etcd") is None:
        raise UsageError("the Cluster's store is etcd, and there is no etcd here", remedy="apt-get install etcd-server")
    cluster = ",".join(f"{server.name}={server.peer}" for server in planned)
    started = []
    for server in planned:
        own = kept / server.name
        if running(own) is None:
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
            started.append((server, own, start(_command(server, cluster, own), underlay, own)))
    for server, own, process in started:
        _wait_until_healthy(server, own, underlay, process)


def pids(kept: Path) -> list[int]:
    """Of the servers that run."""
    return [pid for own in sorted(kept.glob("*")) if (pid := running(own)) is not None]


def _server(number: int, endpoint: str) -> Server:
    host, _, port = endpoint.rpartition(":")
    try:
        return Server(number, ip_address(host.strip("[]")), int(port))
    except ValueError:
        raise UsageError(
            f"a lab's etcd cannot be at {endpoint}: an address is needed instead of a name",
            remedy="for example store: {kind: etcd, endpoints: ['172.30.255.254:2379']}",
        ) from None


def _command(server: Server, cluster: str, own: Path) -> list[str]:
    clients = ["--listen-client-urls", server.client, "--advertise-client-urls", server.client]
    peers = ["--listen-peer-urls", server.peer, "--initial-advertise-peer-urls", server.peer]
    whole = ["--initial-cluster", cluster, "--data-dir", str(own / "data")]
    return ["etcd", "--name", server.name, *clients, *peers, *whole, "--logger", "zap", "--log-outputs", "stderr"]


def _wait_until_healthy(server: Server, own: Path, underlay: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_healthy(server, underlay):
        if process.poll() is not None or time.monotonic() > deadline:
            said = "has no leader" if process.poll() is None else f"ended with {process.poll()}"
            raise StoreError(f"the lab's {server.name} at {server.client} {said}:\n{end_of_log(own)}")
        time.sleep(_PAUSE_S)


def _is_healthy(server: Server, underlay: str) -> bool:
    """By its own word (etcd etcdserver/api/etcdhttp/metrics.go, `/health`), asked for inside the underlay."""
    try:
        with netns.inside(underlay):
            connection = socket.create_connection((str(server.address), server.port), _ANSWER_S)
        with connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b'"health":"true"' in connection.makefile("rb").read()
    except OSError:
        return False
