"""Backends die and come behind a node port, on its host and on another one, under 1,000 connections a second.

To a backend of the other host packets leave with the node's address. What may fail is as in `service_load`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.hosts import Hosts, made_hosts
from tests.e2e.service_load import Backends, Kill, assert_explained, backends, clients

pytestmark = pytest.mark.root

TURNS = 16
RATE, LASTING = 1000, 24
PORT, NODE_PORT = 8080, 30080
ALL, ALIVE = ("a1", "b1", "a2", "b2"), 3
SERVICE = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  ports: [{{port: 80, targetPort: {PORT}, nodePort: {NODE_PORT}}}]
"""
SLICE = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: v{version}, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv{version}
endpoints: [{endpoints}]
ports: [{{port: {port}}}]
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder, services = tmp_path_factory.mktemp("hosts"), {"cidrs": ["10.96.0.0/24", "fd96::/112"]}
    with made_hosts(folder, network={"directRoutes": True}, services=services) as found:
        yield found


def test_connections_from_outside_go_on_while_other_backends_die_and_come(hosts: Hosts) -> None:
    alive, chance = list(ALL[:ALIVE]), random.Random(5)
    _serve(hosts, alive)
    places = [(address, NODE_PORT) for address in hosts.underlay(1)]
    with ExitStack() as stack:
        servers = stack.enter_context(backends(PORT, {name: hosts.space(name) for name in ALL}))
        for name in alive:
            servers.open(name)
        with clients(hosts.space("wire"), places, rate=RATE, lasting=LASTING) as load:
            servers.until_answered(RATE)
            kills = []
            for turn in range(TURNS):
                kills.append(_exchange(hosts, servers, alive, chance, in_table=bool(turn % 2)))
                load.gone(kills[-1].name)
                servers.until_answered(RATE // 2)
    assert_explained(load, kills)
    assert set(load.tally["by_backend"]) == set(ALL)


def _exchange(hosts: Hosts, servers: Backends, alive: list[str], chance: random.Random, *, in_table: bool) -> Kill:
    """A backend goes and the one that was away comes. Who goes is dead before the commit, or lives until then."""
    goes, (comes,) = chance.choice(alive), (one for one in ALL if one not in alive)
    servers.open(comes)
    alive[alive.index(goes)] = comes
    began = time.monotonic()
    connections = servers.kill(goes) if in_table else ()
    _serve(hosts, alive)
    ended = time.monotonic()
    if not in_table:
        connections = servers.kill(goes)
    return Kill(goes, connections, began, ended, in_table)


def _serve(hosts: Hosts, names: list[str]) -> None:
    slices = [SLICE.format(version=one, port=PORT, endpoints=_endpoints(hosts, names, one)) for one in (4, 6)]
    hosts.write("services.yaml", SERVICE + "".join(slices))
    hosts.converge()


def _endpoints(hosts: Hosts, names: list[str], version: int) -> str:
    return ", ".join(f'{{addresses: ["{hosts.address(name, version)}"]}}' for name in names)
