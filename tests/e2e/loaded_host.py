"""One host with a service under load: 1,000 connections a second, half of them by packet and half at the socket.

The backends are workloads; each is there while its manifest is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler.kernel.cgroups import cgroup_mount
from tests.e2e.daemon_host import DaemonHost, cluster, made_host, make_namespace
from tests.e2e.service_load import NUMBERS, Backends, Clients, Kill, assert_explained, backends, clients

RATE, LASTING = 500, 24  # for each of the two kinds of clients
PORT, VIPS = 8080, ("10.96.0.9", "fd96::9")
SERVICE = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  ipFamilyPolicy: RequireDualStack
  clusterIPs: ["{VIPS[0]}", "{VIPS[1]}"]
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: {PORT}}}]
"""
DRAINING = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: drained, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints: [{{addresses: [{address}], conditions: {{ready: false, serving: true, terminating: true}}}}]
"""


class LoadedHost:
    """Use it by `loaded_host`. `kinds`: clients of workloads whose packets are translated, and whose sockets are."""

    def __init__(self, host: DaemonHost, backends: Backends) -> None:
        self.host = host
        self.backends = backends
        self.kinds: dict[str, Clients] = {}

    def there(self, name: str) -> None:
        """The backend's manifest; the commit is the caller's."""
        self.host.write(f"workloads/{name}.yaml", self.host.workload(name, labels={"app": "web"}))

    def away(self, name: str) -> None:
        (self.host.tree / f"workloads/{name}.yaml").unlink()

    def gone(self, name: str) -> None:
        """Clients are told that a backend was killed."""
        for one in self.kinds.values():
            one.gone(name)

    @contextmanager
    def load(self) -> Iterator[None]:
        with ExitStack() as stack:
            for place, (kind, cgroup) in enumerate((("packet", ""), ("socket", str(cgroup_mount() / _cgroup())))):
                namespace, first = self.host.inside(kind), place * NUMBERS + 1
                where = [(address, 80) for address in VIPS]
                self.kinds[kind] = stack.enter_context(
                    clients(namespace, where, rate=RATE, lasting=LASTING, cgroup=cgroup, first=first)
                )
            yield

    def assert_only_these_failed(self, kills: Sequence[Kill] = ()) -> None:
        for kind in self.kinds.values():
            assert_explained(kind, kills)


@contextmanager
def loaded_host(directory: Path, names: Sequence[str], alive: Sequence[str]) -> Iterator[LoadedHost]:
    """Backends of these names; those `alive` are there. The load is the caller's to begin."""
    folder = cgroup_mount() / _cgroup()
    folder.mkdir()
    try:
        with made_host(directory, "packet", "socket", started=False) as host:
            for name in names:
                make_namespace(host.inside(name))
            with backends(PORT, {name: host.inside(name) for name in names}) as servers:
                found = LoadedHost(host, servers)
                host.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/24", "fd96::/112"]}))
                host.write("services/web.yaml", SERVICE)
                host.write("workloads/socket.yaml", host.workload("socket", cgroup=_cgroup()))
                for name in alive:
                    servers.open(name)
                    found.there(name)
                commit = host.commit()
                host.start()
                host.wait_for(commit)
                yield found
    finally:
        folder.rmdir()


def changing_tables(host: DaemonHost) -> tuple[str, ...]:
    """The service's manifest: its backends chosen by hash, by lot, and one of them only draining."""
    random = SERVICE.replace("{name: web}", "{name: web, annotations: {plumbline/algorithm: random}}")
    return SERVICE, random, SERVICE + DRAINING.format(address=host.addresses("b1")[0])


def _cgroup() -> str:
    return f"pt-{os.getpid()}-load.slice"
