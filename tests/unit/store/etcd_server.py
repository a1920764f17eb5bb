"""Real etcd servers on ports of their own: started, killed, frozen, thawed and started again on their data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler.store.etcd_client import Etcd3Client, etcdrpc

START_S = 20.0
FAST = ("--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-outputs", "stderr")


class EtcdServer:
    """One server. `tls` are the options that make its client port one with TLS, `within` a command that starts it."""

    def __init__(
        self,
        folder: Path,
        name: str = "pt-etcd",
        tls: Sequence[str] = (),
        address: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.port, self._peer_port = _free_ports(2)
        self._tls = tls
        self._address = address
        self._within = within
        self._process: subprocess.Popen[bytes] | None = None
        self.peer = f"{name}=http://127.0.0.1:{self._peer_port}"

    @property
    def endpoint(self) -> str:
        return f"{self._address}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, cluster: str = "") -> None:
        """Without waiting until it answers: of several, none does until most are there."""
        client = f"{'https' if self._tls else 'http'}://{self.endpoint}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._cluster = cluster or self.peer
        self.folder.mkdir(parents=True, exist_ok=True)
        command = f"etcd --name {self.name} --initial-cluster {self._cluster}".split()
        command += f"--listen-client-urls {client} --advertise-client-urls {client}".split()
        command += f"--listen-peer-urls {peer} --initial-advertise-peer-urls {peer}".split()
        command += ["--data-dir", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*self._within, *command, *FAST, *self._tls], stdout=log, stderr=log)

    def start(self) -> None:
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Until it answers a read that needs a leader."""
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def again(self) -> None:
        self.launch(self._cluster)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """On its data, but on a port that nobody knows; then back again."""
        known = self.port
        self.kill()
        [self.port] = _free_ports(1)
        self.again()
        self.wait()
        yield
        self.kill()
        self.port = known
        self.again()
        self.wait()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[Etcd3Client]:
        """etcd3 as it is, for what a store does not do."""
        with Etcd3Client(host=self._address, port=self.port, timeout=2) as client:
            yield client

    def leads(self) -> bool:
        """Whether this server is the leader, by its own word."""
        with self.client() as client:
            status = client.maintenancestub.Status(etcdrpc.StatusRequest(), 2)
            return bool(status.leader == status.header.member_id)

    def _answers(self) -> bool:
        if self._tls:
            with socket.socket() as probe:
                return probe.connect_ex((self._address, self.port)) == 0
        with self.client() as client:
            try:
                client.get("/")
            except Exception:
                return False
        return True


@contextmanager
def running(folder: Path, tls: Sequence[str] = ()) -> Iterator[EtcdServer]:
    server = EtcdServer(folder, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def cluster_of(count: int, folder: Path) -> Iterator[list[EtcdServer]]:
    servers = [EtcdServer(folder / str(number), f"pt-etcd-{number}") for number in range(count)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.launch(",".join(one.peer for one in servers))
        for server in servers:
            server.wait()
        yield servers


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
