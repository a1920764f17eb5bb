"""Two workloads of a host talk: ping, bulk TCP, request and response. The same wires without us are the baseline.

Client and server of the request-response pairs share one CPU, so that waking another one is not what is measured; bulk
TCP takes all the CPUs there are, and says little when they are busy otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.bench.bed import PORT, A, B, Bed, Wires, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.path import on_one_cpu

ROUNDS = 7
PINGS, PING_INTERVAL_S = 200, 0.002
REQUESTS, CONNECTIONS = 20_000, 3_000
BULK_ROUNDS, BULK_S = 3, 2

_TOOL = str(OBJECTS / "request_response")


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        ours, plain = stack.enter_context(made(Bed("wire"))), stack.enter_context(made(Wires("bare")))
        ours.attach()
        with on_one_cpu():
            yield _figure("ping", "us", _times(ping, ours, plain))
            with serving(ours), serving(plain):
                yield _figure("request_response", "us", _times(lambda on: asked(on, "ask", REQUESTS), ours, plain))
                yield _figure("connect", "us", _times(lambda on: asked(on, "connect", CONNECTIONS), ours, plain))
        yield _figure("bulk", "Gbit/s", _times(bulk, ours, plain, BULK_ROUNDS))


def _times(one: Callable[[Wires], float], ours: Wires, plain: Wires, rounds: int = ROUNDS) -> tuple[float, float]:
    found: defaultdict[Wires, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for wires in (ours, plain):
            found[wires].append(one(wires))
    return median(found[ours]), median(found[plain])


def _figure(name: str, unit: str, values: tuple[float, float]) -> Figure:
    return Figure(f"wire.{name}", values[0], unit, values[1])


def ping(wires: Wires) -> float:
    """Median round trip in microseconds."""
    said = _run(wires.inside(A), "ping", "-c", str(PINGS), "-i", str(PING_INTERVAL_S), B.address4)
    return 1000 * median(float(found) for found in re.findall(r"time=([0-9.]+) ms", said))


def asked(wires: Wires, how: str, count: int) -> float:
    """Median in microseconds."""
    return float(_run(wires.inside(A), _TOOL, how, B.address4, str(PORT), str(count)).split()[0])


def bulk(wires: Wires) -> float:
    """Gbit/s that arrived."""
    server = subprocess.Popen(
        _in(wires.inside(B), "iperf3", "--server", "--one-off", "--port", str(PORT), "--forceflush"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_line(server, "Server listening")
        client = ("iperf3", "--client", B.address4, "--port", str(PORT), "--time", str(BULK_S), "--json")
        said = json.loads(_run(wires.inside(A), *client))
        server.communicate(timeout=BULK_S)
    finally:
        server.kill()
        server.communicate()
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def serving(wires: Wires, port: int = PORT) -> Iterator[None]:
    """B answers requests."""
    server = subprocess.Popen(
        _in(wires.inside(B), _TOOL, "serve", B.address4, str(port)), stdout=subprocess.PIPE, text=True
    )
    try:
        _wait_for_line(server, "listening")
        yield
    finally:
        server.kill()
        server.communicate()


def _wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise RuntimeError(f"{process.args!r} ended")


def _run(namespace: str, *command: str) -> str:
    return subprocess.run(_in(namespace, *command), check=True, capture_output=True, text=True).stdout


def _in(namespace: str, *command: str) -> list[str]:
    return ["nsenter", f"--net={namespace}", *command]
