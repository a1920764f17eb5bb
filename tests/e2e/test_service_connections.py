"""A commit's services in use: by packet, at the socket of a workload's cgroup, and by processes of the host itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.host import Host
from reconciler.kernel import netns
from reconciler.kernel.cgroups import cgroup_mount
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import NAMESPACE, DaemonHost, cluster, made_host, node

pytestmark = pytest.mark.root
SERVICE, PORT, TARGET = "10.96.0.9", 80, 8080
CGROUP = f"pt-{os.getpid()}-conn.slice"
WEB = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  clusterIP: {SERVICE}
  ports: [{{name: http, port: {PORT}, targetPort: {TARGET}}}]
"""
CONNECT = f"""
import json, socket
with socket.create_connection(("{SERVICE}", {PORT}), timeout=5) as made:
    made.sendall(b"ask")
    print(json.dumps([made.getsockname()[0], made.getpeername(), made.recv(16).decode()]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("connections"), "web", "client", started=False) as found:
        found.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/24"]}))
        found.write("services/web.yaml", WEB)
        found.commit()
        yield found


@pytest.fixture
def host(made: DaemonHost) -> Iterator[Host]:
    with inside(made.path), Host.open(made.config) as opened:
        opened.converge(made.git("rev-parse", "HEAD"))
        yield opened
        made.write("workloads/client.yaml", made.workload("client"))
        made.write("base.yaml", NAMESPACE + node())
        opened.converge(made.commit())
    if (cgroup_mount() / CGROUP).exists():
        (cgroup_mount() / CGROUP).rmdir()


@pytest.fixture
def server(made: DaemonHost, host: Host) -> Iterator[socket.socket]:
    with netns.inside(made.inside("web")):
        listener = socket.create_server(("0.0.0.0", TARGET))
    with listener:
        listener.settimeout(5)
        yield listener


def connect(made: DaemonHost, server: socket.socket, place: str, cgroup: str = "") -> tuple[list[Any], str]:
    """What the client saw (its address, its peer, the answer), and whom the server saw."""
    enter = f"echo $$ > {cgroup_mount() / cgroup / 'cgroup.procs'} && " if cgroup else ""
    command = f"{enter}exec nsenter --net={place} {sys.executable} -c '{CONNECT}'"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) as client:
        accepted, peer = server.accept()
        with accepted:
            assert accepted.recv(3) == b"ask"
            accepted.sendall(b"answer")
            said, _ = client.communicate(timeout=10)
    return json.loads(said), peer[0]


def translated(host: Host) -> int:
    """Flows that were translated packet by packet."""
    return len(host._tables.maps.open("service_flows4").read()[0])


def rows(host: Host) -> int:
    return len(host.tables["cgroups"].live())


def test_without_a_cgroup_packets_are_translated(made: DaemonHost, host: Host, server: socket.socket) -> None:
    before = translated(host)
    (own, peer, answer), seen = connect(made, server, made.inside("client"))
    assert (peer, answer, seen) == ([SERVICE, PORT], "answer", own)
    assert translated(host) == before + 1


def test_a_workloads_cgroup_is_waited_for_and_then_no_packet_is_translated(
    made: DaemonHost, host: Host, server: socket.socket
) -> None:
    made.write("workloads/client.yaml", made.workload("client", cgroup=CGROUP))
    commit = made.commit()
    host.converge(commit)
    assert [one.message for one in host.absent.workloads] == [
        f"workload default/client: cgroup {CGROUP} is missing; the programs of its sockets wait for it"
    ]
    assert rows(host) == 0
    (cgroup_mount() / CGROUP).mkdir()
    assert host.converge(commit) is not None
    assert rows(host) == 8
    before = translated(host)
    (own, peer, answer), seen = connect(made, server, made.inside("client"), CGROUP)
    assert (peer, answer, seen) == ([SERVICE, PORT], "answer", own)
    assert translated(host) == before


def test_processes_of_the_host_reach_services_by_its_cgroup(
    made: DaemonHost, host: Host, server: socket.socket
) -> None:
    (cgroup_mount() / CGROUP).mkdir()
    made.write("base.yaml", NAMESPACE + node(cgroup=f"/{CGROUP}"))
    made.ip("address", "replace", "10.46.255.1/32", "dev", "lo")
    host.converge(made.commit())
    (own, peer, answer), seen = connect(made, server, made.path, CGROUP)
    assert (peer, answer, seen) == ([SERVICE, PORT], "answer", own)


def test_a_cgroup_that_is_named_no_more_loses_its_programs(made: DaemonHost, host: Host) -> None:
    (cgroup_mount() / CGROUP).mkdir()
    made.write("workloads/client.yaml", made.workload("client", cgroup=CGROUP))
    host.converge(made.commit())
    assert rows(host) == 8
    made.write("workloads/client.yaml", made.workload("client"))
    host.converge(made.commit())
    assert rows(host) == 0


def test_a_cgroup_that_went_takes_its_rows_along(made: DaemonHost, host: Host) -> None:
    (cgroup_mount() / CGROUP).mkdir()
    made.write("workloads/client.yaml", made.workload("client", cgroup=CGROUP))
    host.converge(made.commit())
    (cgroup_mount() / CGROUP).rmdir()
    plan = host.drift(("cgroups",))
    assert plan is not None
    host.repair(plan)
    assert rows(host) == 0
    (cgroup_mount() / CGROUP).mkdir()
    plan = host.drift(("cgroups",))
    assert plan is not None
    host.repair(plan)
    assert rows(host) == 8
