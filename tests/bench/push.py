"""From the start of `git push` until a packet's verdict has changed: 50 pushes, with 10, 100 and 1,000 policies there.

Each commit lets the client reach another port of the server, and the client tries that port all the time.
"""

from __future__ import annotations

import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.kernel import netns
from tests.bench.figures import Figure, median, percentile
from tests.bench.hosted import CLIENT, SERVER, Hosted, hosted

POLICIES = (10, 100, 1_000)
PUSHES = 50
FIRST_PORT = 20_000
TRY_EVERY_S = 0.0005
DEADLINE_S = 20.0


def measure() -> Iterator[Figure]:
    for policies in POLICIES:
        with hosted(policies) as host:
            pushes = [_push(host, FIRST_PORT + number) for number in range(PUSHES)]
        enforced, returned = zip(*pushes, strict=True)
        name = f"push.policies_{policies}"
        yield Figure(f"{name}.p50", median(enforced), "ms")
        yield Figure(f"{name}.p99", percentile(enforced, 99), "ms")
        yield Figure(f"{name}.returned.p50", median(returned), "ms")


def _push(host: Hosted, port: int) -> tuple[float, float]:
    """Milliseconds until a packet to this port arrives, and until `git push` ends."""
    host.allow(port)
    with _arrivals(host, port) as arrived:
        began = time.monotonic()
        push = subprocess.Popen(
            ["git", "-C", str(host.work), "push", "-q", "origin", "main"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said, _ = push.communicate(timeout=DEADLINE_S)
        returned = time.monotonic()
        if push.returncode:
            raise RuntimeError(f"git push: {said}")
        enforced = arrived.wait()
    return (enforced - began) * 1000, (returned - began) * 1000


class _Arrival(threading.Thread):
    """Sends to a port until a packet has arrived there, and remembers when."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(name="probe", daemon=True)
        self._client, self._server = client, server
        self._at = 0.0
        self.start()

    def wait(self) -> float:
        """On the monotonic clock. Raises TimeoutError."""
        self.join(DEADLINE_S)
        if not self._at:
            raise TimeoutError("the verdict did not change")
        return self._at

    def run(self) -> None:
        deadline = time.monotonic() + 2 * DEADLINE_S
        while time.monotonic() < deadline:
            self._client.send(b"?")
            if select.select([self._server], [], [], TRY_EVERY_S)[0]:
                self._at = time.monotonic()
                return


@contextmanager
def _arrivals(host: Hosted, port: int) -> Iterator[_Arrival]:
    with (
        _socket(host.inside(SERVER)) as server,
        _socket(host.inside(CLIENT)) as client,
    ):
        server.bind(("", port))
        client.connect((host.address(SERVER), port))
        yield _Arrival(client, server)


def _socket(namespace: str) -> socket.socket:
    with netns.inside(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
