"""One host on an etcd among many that say a lot: how soon it knows an endpoint, what joining and following cost it.

The other hosts are this process, which writes what their daemons would.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.model.labels import Label
from reconciler.store.announcements import Announcement, endpoint_key
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_servers import Servers
from reconciler.store.identities import Identities
from tests.bench.figures import Figure, median, percentile
from tests.e2e.daemon_host import until
from tests.e2e.joined_hosts import Joined, joined

KNOWN = (10_000, 100_000)
IDENTITIES = 200
SINGLE = 200
RATE, FOR_S = 100, 60
FIRST = int(IPv4Address("10.99.0.0"))
NODES = 100
CHUNK = 100


class Crowd:
    """What other hosts say: endpoints by number."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        sets = [frozenset((Label("k8s", "app", f"a{number}"),)) for number in range(IDENTITIES)]
        self._identities = list(Identities(store, 0, "demo").allocate(sets).values())

    def written(self, number: int, turn: int = 0) -> dict[str, bytes]:
        """An endpoint's key and value; with another turn it has another identity."""
        node, name = f"node-{number % NODES}", f"default/w{number}"
        identity = self._identities[(number + turn) % IDENTITIES]
        value = Announcement((IPv4Address(FIRST + number),), identity, frozenset(), f"w/{number}.yaml", 1, "c" * 40)
        return {endpoint_key("demo", node, name): value.encoded()}

    def identity(self, number: int, turn: int = 0) -> int:
        return self._identities[(number + turn) % IDENTITIES]

    def say(self, numbers: range, turn: int = 0) -> None:
        writes: dict[str, bytes | None] = {}
        for number in numbers:
            writes |= self.written(number, turn)
        self._store.transact({}, writes)


class Seen:
    """The identities that packets at the host are judged by, out of its map."""

    def __init__(self, pins: Path) -> None:
        self._map = PinnedMaps(pins).open("ipcache4")

    def identity(self, number: int) -> int:
        key = np.array([FIRST + number], ">u4").view(self._map.key_dtype)
        found, values = self._map.lookup(key)
        return int(values["identity"][0]) if found[0] else 0

    def wait(self, number: int, identity: int) -> None:
        deadline = time.monotonic() + 30
        while self.identity(number) != identity:
            if time.monotonic() > deadline:
                raise RuntimeError(f"endpoint {number} is not heard of")
            time.sleep(0.0002)


def measure() -> Iterator[Figure]:
    cluster = {"store": {"kind": "etcd"}, "network": {"mode": "vxlan"}}
    with (
        tempfile.TemporaryDirectory(prefix="pt-bench-") as folder,
        joined(Path(folder), "alpha", cluster=cluster) as made,
    ):
        made["alpha"].add("web")
        made.first.commit()
        made.start()
        made.commit()
        with closing(EtcdStore(Servers([made.etcd.endpoint]))) as store:
            crowd = Crowd(store)
            yield from _announced(made, crowd, "alone")
            for known in KNOWN:
                yield from _joins(made, crowd, known)
                yield from _announced(made, crowd, f"among_{known}")
                yield from _follows(made, crowd, known)


def _announced(made: Joined, crowd: Crowd, name: str) -> Iterator[Figure]:
    """One endpoint after the other, each new or changed when nothing else goes on."""
    seen, took = Seen(made["alpha"].config.pin_root), []
    for turn in range(SINGLE):
        number = turn % 10
        began = time.perf_counter()
        crowd.say(range(number, number + 1), turn + 1)
        seen.wait(number, crowd.identity(number, turn + 1))
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.1)
    yield Figure(f"cluster.announced.{name}.p50", median(took), "ms")
    yield Figure(f"cluster.announced.{name}.p99", percentile(took, 99), "ms")


def _joins(made: Joined, crowd: Crowd, known: int) -> Iterator[Figure]:
    """A daemon that starts with nothing: until the last of many endpoints is known."""
    alpha = made["alpha"]
    alpha.stop()
    for mirror in alpha.config.state_directory.glob("mirror-*"):
        mirror.unlink()
    for start in range(0, known, CHUNK):
        crowd.say(range(start, start + CHUNK))
    reads, began = _reads(made), time.perf_counter()
    alpha.start()
    Seen(alpha.config.pin_root).wait(known - 1, crowd.identity(known - 1))
    yield Figure(f"cluster.join_{known}.known", time.perf_counter() - began, "s")
    until(lambda: alpha.status()["state"] == "converged", "alpha is converged")
    yield Figure(f"cluster.join_{known}.reads", _reads(made) - reads, "")
    yield Figure(f"cluster.join_{known}.cpu", _cpu_s(alpha.status()["daemon"]["pid"]), "s")
    yield Figure(f"cluster.join_{known}.resident", _resident_mb(alpha.status()["daemon"]["pid"]), "MB")


def _follows(made: Joined, crowd: Crowd, known: int) -> Iterator[Figure]:
    """So many changes a second: how late every tenth is known, and the daemon's share of a CPU."""
    seen, lags = Seen(made["alpha"].config.pin_root), []
    pid = made["alpha"].status()["daemon"]["pid"]
    used, began = _cpu_s(pid), time.perf_counter()
    for change in range(RATE * FOR_S):
        number, turn = change % known, 1 + change // known
        crowd.say(range(number, number + 1), turn)
        if change % 10 == 9:
            said = time.perf_counter()
            seen.wait(number, crowd.identity(number, turn))
            lags.append((time.perf_counter() - said) * 1000)
        time.sleep(max(0.0, began + (change + 1) / RATE - time.perf_counter()))
    elapsed = time.perf_counter() - began
    yield Figure(f"cluster.follow_{known}.rate", RATE * FOR_S / elapsed, "/s")
    yield Figure(f"cluster.follow_{known}.lag.p50", median(lags), "ms")
    yield Figure(f"cluster.follow_{known}.lag.p99", percentile(lags, 99), "ms")
    yield Figure(f"cluster.follow_{known}.cpu", (_cpu_s(pid) - used) / elapsed * 100, "%")


def _reads(made: Joined) -> float:
    """Range requests that etcd has answered."""
    with urllib.request.urlopen(f"http://{made.etcd.endpoint}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(r'^grpc_server_handled_total\{grpc_code="OK",grpc_method="Range".*\} (\S+)$', text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
