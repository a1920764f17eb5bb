"""A daemon with 10,000 Services of 10 backends each: its start, a change of one of them, and its memory.

`enforced`: from before the branch moves until packets see the change; `cpu`: of the daemon for each such commit, all
that follows it included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from tests.bench.daemon import cpu_s, kilobytes
from tests.bench.figures import Figure, median
from tests.bench.table_change import enforced_ms
from tests.e2e.daemon_host import DaemonHost, cluster, made_host, until

COUNT, EACH, CHANGES = 10_000, 10, 20
START_S = 600.0
_FIRST_BACKEND = int(IPv4Address("11.0.0.1"))
_SERVICE = """---
apiVersion: v1
kind: Service
metadata: {{name: s{number}}}
spec: {{ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number}, labels: {{kubernetes.io/service-name: s{number}}}}}
addressType: IPv4
endpoints: [{endpoints}]
ports: [{{port: 8080}}]
"""


def measure() -> Iterator[Figure]:
    name = f"services_daemon.{COUNT}"
    with made_host(Path(tempfile.mkdtemp(prefix="pt-bench-")), started=False) as host:
        commits = _commits(host)
        began = time.monotonic()
        host.start()
        until(lambda: host.at == commits[0], "the services are served", START_S)
        process = _process(host)
        yield Figure(f"{name}.start", time.monotonic() - began, "s")
        yield Figure(f"{name}.start.cpu", cpu_s(process), "CPU s")
        before = cpu_s(process)
        times = [enforced_ms(host, commits[turn % 2]) for turn in range(1, CHANGES + 1)]
        yield Figure(f"{name}.one_changed.enforced.p50", median(times), "ms")
        yield Figure(f"{name}.one_changed.cpu", (cpu_s(process) - before) * 1000 / CHANGES, "CPU ms")
        yield Figure(f"{name}.resident", kilobytes(process, "VmRSS") / 1024, "MB")
        yield Figure(f"{name}.resident_peak", kilobytes(process, "VmHWM") / 1024, "MB")


def _commits(host: DaemonHost) -> tuple[str, str]:
    """Two that differ by one backend of one service; the branch is at the first."""
    host.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/16"]}))
    for number in range(COUNT):
        host.write(f"services/{number}.yaml", _service(number, EACH))
    first = host.commit()
    host.write("services/0.yaml", _service(0, EACH - 1))
    second = host.commit()
    host.move(first)
    return first, second


def _service(number: int, backends: int) -> str:
    first = _FIRST_BACKEND + number * EACH
    endpoints = ", ".join(f"{{addresses: [{IPv4Address(first + place)}]}}" for place in range(backends))
    return _SERVICE.format(number=number, endpoints=endpoints)


def _process(host: DaemonHost) -> Path:
    assert host.daemon is not None
    return Path(f"/proc/{host.daemon.pid}")
