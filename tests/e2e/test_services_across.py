"""A service whose backend is on another host: translated, wrapped, answered; whatever is too large for the tunnel."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.e2e.across import DEADLINE_S, PORT, listening, opened
from tests.e2e.hosts import Hosts, made_hosts
from tests.e2e.test_overlay_mtu import DO, IP_MTU, IP_MTU_DISCOVER, IPV6_MTU, IPV6_MTU_DISCOVER, eventually

pytestmark = pytest.mark.root
VIP = {4: "10.96.0.9", 6: "fd96::9"}
PATIENCE_S = 0.5
BULK = os.urandom(4 << 20)
versions = pytest.mark.parametrize("version", [4, 6])


def _manifests(hosts: Hosts) -> str:
    slices = "".join(
        f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: far-{version}, namespace: default, labels: {{kubernetes.io/service-name: far}}}}
addressType: IPv{version}
endpoints: [{{addresses: ["{hosts.address("a2", version)}"]}}]
ports: [{{name: t, port: {PORT}, protocol: TCP}}, {{name: u, port: {PORT}, protocol: UDP}}]
"""
        for version in VIP
    )
    return f"""---
apiVersion: v1
kind: Service
metadata: {{name: far, namespace: default}}
spec:
  ipFamilyPolicy: RequireDualStack
  clusterIPs: ["{VIP[4]}", "{VIP[6]}"]
  ports: [{{name: t, port: 80, protocol: TCP}}, {{name: u, port: 80, protocol: UDP}}]
{slices}"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Workloads whose MTU is too large for the tunnel."""
    folder, services = tmp_path_factory.mktemp("hosts"), {"cidrs": ["10.96.0.0/24", "fd96::/112"]}
    with made_hosts(folder, network={"mode": "vxlan"}, mtu=1500, services=services) as found:
        found.write("services.yaml", _manifests(found))
        found.converge()
        yield found


@versions
def test_bulk_arrives_as_it_was_sent_and_comes_from_the_service(hosts: Hosts, version: int) -> None:
    arrived = hashlib.sha256()
    with (
        listening(hosts.space("a2"), hosts.address("a2", version)) as server,
        opened(hosts.space("a1"), VIP[version], socket.SOCK_STREAM) as client,
    ):

        def receive() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                while part := connection.recv(1 << 16):
                    arrived.update(part)
                connection.sendall(BULK)

        serving = threading.Thread(target=receive)
        serving.start()
        client.connect((VIP[version], 80))
        client.sendall(BULK)
        client.shutdown(socket.SHUT_WR)
        answered = hashlib.sha256()
        while part := client.recv(1 << 16):
            answered.update(part)
        serving.join(DEADLINE_S)
    assert [arrived.digest(), answered.digest()] == [hashlib.sha256(BULK).digest()] * 2


@versions
def test_datagrams_are_answered_by_the_service_in_fragments_too(hosts: Hosts, version: int) -> None:
    with (
        listening(hosts.space("a2"), hosts.address("a2", version), socket.SOCK_DGRAM) as server,
        opened(hosts.space("b1"), VIP[version], socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(PATIENCE_S)
        server.settimeout(PATIENCE_S)
        for size in (1, 1400, 4000):
            eventually(lambda size=size: _answered(client, server, (VIP[version], 80), os.urandom(size)))


def _answered(client: socket.socket, server: socket.socket, service: tuple[str, int], data: bytes) -> bool:
    """False if it was lost: the first one that is too large for the tunnel only tells its sender so."""
    try:
        client.sendto(data, service)
        found, peer = server.recvfrom(1 << 16)
        server.sendto(found, peer)
        answer, source = client.recvfrom(1 << 16)
    except TimeoutError:
        return False
    return (answer, source[:2]) == (data, service)


@versions
def test_a_workload_is_told_what_the_way_to_the_service_carries(hosts: Hosts, version: int) -> None:
    level, discover, asked = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
        if version == 6
        else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
    )

    def told() -> int:
        with opened(hosts.space("b1"), VIP[version], socket.SOCK_DGRAM) as made:
            made.setsockopt(level, discover, DO)
            made.connect((VIP[version], 80))
            with suppress(OSError):  # known already
                made.send(bytes(1440))
            return int(made.getsockopt(level, asked))

    with listening(hosts.space("a2"), hosts.address("a2", version), socket.SOCK_DGRAM):
        eventually(lambda: told() == 1450)
