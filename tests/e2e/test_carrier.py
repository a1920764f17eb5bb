"""No packet passes a workload's link before its programs are on it: not when it is made, nor when it is made again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.host import Host
from reconciler.kernel import netns
from reconciler.model.datapath import GATEWAY_MAC
from tests.datapath.packets import udp
from tests.e2e.daemon_host import DaemonHost, made_host, make_namespace, until

pytestmark = pytest.mark.root

PORT = 4000
OUTSIDE, ROUTER = "198.51.100.2", "198.51.100.1"
OWN, FORGED = "10.46.0.60", "203.0.113.66"
TIMES = 6
EVERY_PROTOCOL = 3  # ETH_P_ALL, linux/if_ether.h


class Flood(threading.Thread):
    """Frames out of a workload's `eth0` as fast as they go, whatever becomes of that link meanwhile."""

    def __init__(self, path: str, frames: list[bytes]) -> None:
        super().__init__(daemon=True)
        with netns.inside(path):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._frames = frames
        self._ending = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._ending.is_set():
            for frame in self._frames:
                with suppress(OSError):  # the link is down, or not there
                    self._socket.sendto(frame, ("eth0", 0))
                    self.sent += 1

    def end(self) -> None:
        self._ending.set()
        self.join()
        self._socket.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DaemonHost]:
    """A host that routes to a place outside, without a check of the reverse path; nothing is applied to it yet."""
    with made_host(tmp_path, "web", started=False) as made:
        outside = f"{made.path}-outside"
        make_namespace(outside)
        made.ip("link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", Path(outside).name)
        made.ip("address", "add", f"{ROUTER}/24", "dev", "uplink")
        made.ip("link", "set", "uplink", "up")
        made.ip("address", "add", f"{OUTSIDE}/24", "dev", "eth0", netns=outside)
        made.ip("link", "set", "eth0", "up", netns=outside)
        with netns.inside(made.path):
            for name in ("all", "default"):
                Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
        made.write("workloads/web.yaml", made.workload("web", addresses=[OWN, "fd46::60"]))
        made.commit()
        yield made


def test_forged_packets_never_get_out_while_a_link_is_made_and_made_again(host: DaemonHost) -> None:
    gateway = bytes.fromhex(GATEWAY_MAC.replace(":", ""))
    frames = [gateway + udp(source, 5, OUTSIDE, PORT)[len(gateway) :] for source in (OWN, FORGED)]
    with _heard(f"{host.path}-outside") as heard, netns.inside(host.path), Host.open(host.config) as here:
        flood = Flood(host.inside("web"), frames)
        flood.start()
        try:
            here.converge("main")
            for _ in range(TIMES):
                _get_through(heard)
                host.ip("link", "del", _device(here))
                while plan := here.drift():
                    here.repair(plan)
            _get_through(heard)
        finally:
            flood.end()
        assert flood.sent > TIMES
    assert socket.inet_aton(FORGED) not in heard


def _get_through(heard: dict[bytes, int]) -> None:
    before = heard.get(socket.inet_aton(OWN), 0)
    until(lambda: heard.get(socket.inet_aton(OWN), 0) > before + 10, "packets with the workload's address get out")


def _device(here: Host) -> str:
    (name,) = here.tables["links"].live().rows  # type: ignore[union-attr]
    return str(name)


@contextmanager
def _heard(path: str) -> Iterator[dict[bytes, int]]:
    """Source address -> IPv4 packets that arrived in a namespace, counted while the block runs."""
    with netns.inside(path):
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    listening.settimeout(0.05)
    counts: dict[bytes, int] = {}
    ending = threading.Event()

    def listen() -> None:
        while not ending.is_set():
            with suppress(TimeoutError):
                frame = listening.recv(2048)
                if frame[12:14] == b"\x08\x00":
                    counts[frame[26:30]] = counts.get(frame[26:30], 0) + 1

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        ending.set()
        thread.join()
        listening.close()
