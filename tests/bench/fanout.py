"""What many hosts cost one etcd: CPU time for each change that it passes on to each of them, and for each that joins.

Hosts are watches with a connection of their own, in this process; only etcd's own CPU time counts, so it matters little
how slow they are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv4Address
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from reconciler.store.announcements import Announcement, endpoint_key, endpoints_prefix
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_client import etcdrpc
from reconciler.store.etcd_keys import prefix_range
from reconciler.store.etcd_servers import Servers
from tests.bench.figures import Figure
from tests.unit.store.etcd_server import EtcdServer, running

HOSTS = (10, 100)
CHANGES = 200
ENDPOINTS, OF_A_HOST = 100_000, 100
JOINS = 5
CLUSTER = "bench"
DEADLINE_S = 120.0
_OWN = (("grpc.use_local_subchannel_pool", 1),)  # a connection for each
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def measure() -> Iterator[Figure]:
    with (
        TemporaryDirectory(prefix="pt-bench-") as folder,
        running(Path(folder)) as server,
        closing(EtcdStore(Servers([server.endpoint]))) as store,
    ):
        yield from _filled(server, store)
        for count in HOSTS:
            yield from _watched(server, store, count)


def _filled(server: EtcdServer, store: EtcdStore) -> Iterator[Figure]:
    before = _size(server)
    for start in range(0, ENDPOINTS, store.max_writes):
        some = range(start, min(start + store.max_writes, ENDPOINTS))
        store.transact({}, dict(_endpoint(number) for number in some))
    yield Figure(f"fanout.endpoints_{ENDPOINTS}.database", (_size(server) - before) / ENDPOINTS, "bytes each")
    began = _cpu_s(server)
    for _ in range(JOINS):
        assert len(store.range(endpoints_prefix(CLUSTER)).items) == ENDPOINTS
    yield Figure(f"fanout.endpoints_{ENDPOINTS}.join.cpu", (_cpu_s(server) - began) / JOINS * 1e3, "ms")
    yield Figure(f"fanout.endpoints_{ENDPOINTS}.resident", _resident(server) / 1e6, "MB")


def _watched(server: EtcdServer, store: EtcdStore, count: int) -> Iterator[Figure]:
    name = f"fanout.hosts_{count}"
    with ExitStack() as stack:
        hosts = [stack.enter_context(Follower(server)) for _ in range(count)]
        for host in hosts:
            host.wait(0)
        idle = _resident(server)
        cpu_s, began = _cpu_s(server), time.monotonic()
        for number in range(CHANGES):
            store.put(*_endpoint(number, turn=count))
        for host in hosts:
            host.wait(CHANGES)
        passed_on = CHANGES * count
        yield Figure(f"{name}.cpu_per_event", (_cpu_s(server) - cpu_s) / passed_on * 1e6, "µs")
        yield Figure(f"{name}.events", passed_on / (time.monotonic() - began), "/s")
        yield Figure(f"{name}.resident", idle / 1e6, "MB")


class Follower:
    """A host's watch of all endpoints."""

    def __init__(self, server: EtcdServer) -> None:
        self._channel = grpc.insecure_channel(server.endpoint, _OWN)
        self._heard = -1  # the answer that says that the watch is there comes first
        self._changed = threading.Condition()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        start, end = prefix_range(endpoints_prefix(CLUSTER))
        wanted = etcdrpc.WatchCreateRequest(key=start, range_end=end)
        self._requests.put(etcdrpc.WatchRequest(create_request=wanted))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def wait(self, events: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._heard >= events, DEADLINE_S), self._heard

    def _follow(self) -> None:
        stream = etcdrpc.WatchStub(self._channel).Watch(iter(self._requests.get, None))
        try:
            for response in stream:
                with self._changed:
                    self._heard += len(response.events) + response.created
                    self._changed.notify()
        except grpc.RpcError:
            return


def _endpoint(number: int, turn: int = 0) -> tuple[str, bytes]:
    """As a host announces it."""
    address = IPv4Address("10.0.0.0") + number
    identity = 1000 + (number + turn) % 1000
    value = Announcement((address,), identity, frozenset(), f"workloads/w{number}.yaml", 1, "c" * 40)
    return endpoint_key(CLUSTER, f"node-{number // OF_A_HOST}", f"default/w{number}"), value.encoded()


def _cpu_s(server: EtcdServer) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS  # proc(5): utime, stime


def _resident(server: EtcdServer) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * PAGE


def _size(server: EtcdServer) -> int:
    with server.client() as client:
        return int(client.maintenancestub.Status(etcdrpc.StatusRequest(), 5).dbSize)
