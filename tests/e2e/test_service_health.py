"""The daemon checks backends: one that does not answer leaves the table, and is back when it does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.daemon_host import DaemonHost, cluster, made_host, until

pytestmark = pytest.mark.root

PORT = 8080
WEB = """
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {plumbline/health-check: "{interval: 0.1, timeout: 0.1}", plumbline/all-unhealthy: %s}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("health"), "web", started=False) as found:
        found.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/24"]}))
        found.write("services/web.yaml", WEB % "refuse")
        commit = found.commit()
        for address in ("192.0.2.1/32", "2001:db8::1/128"):  # a host without an address reaches nobody
            found.ip("address", "add", address, "dev", "lo")
        found.start()
        found.wait_for(commit)
        yield found


@contextmanager
def listening(made: DaemonHost) -> Iterator[None]:
    """The workload listens at the port, on both families."""
    code = f"import socket; s = socket.create_server(('::', {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    code += "while True: s.accept()[0].close()"
    server = subprocess.Popen(["nsenter", f"--net={made.inside('web')}", sys.executable, "-c", code])
    try:
        yield
    finally:
        server.kill()
        server.wait()


def backends(made: DaemonHost) -> list[dict[str, Any]]:
    (service,) = made.client.get("/v1/services")
    return list(service["ports"][0]["backends"])


def states(made: DaemonHost) -> set[str]:
    return {one["state"] for one in backends(made)}


def in_tables(made: DaemonHost) -> int:
    """Backends that get new flows, by the live rows."""
    return sum(
        len(row["row"]["backends"]) for row in made.client.get("/v1/tables/services") if row["row"].get("backends")
    )


def test_who_does_not_answer_gets_no_new_flows_until_it_does(made: DaemonHost) -> None:
    until(lambda: states(made) == {"unhealthy"} and in_tables(made) == 0, "nobody is in a table")
    with listening(made):
        until(lambda: states(made) == {"active"} and in_tables(made) > 0, "the backend is back")
    until(lambda: states(made) == {"unhealthy"} and in_tables(made) == 0, "it is gone again")


def test_a_daemon_that_starts_anew_knows_who_was_unhealthy(made: DaemonHost) -> None:
    until(lambda: states(made) == {"unhealthy"}, "nobody answers")
    made.stop()
    log = len(made.log())
    made.start()
    made.settle()
    assert states(made) == {"unhealthy"}
    assert "backend unhealthy" not in made.log()[log:]


def test_where_all_are_unhealthy_they_may_be_used_all_the_same(made: DaemonHost) -> None:
    made.write("services/web.yaml", WEB % "open")
    made.wait_for(made.commit())
    until(lambda: states(made) == {"unhealthy"} and in_tables(made) > 0, "unhealthy ones are in the table")
