"""Probes of the `Cluster` manifest: a connection from inside a workload that must open, or must not.

Each runs in a thread of its own that enters the workload's namespace, so the caller stays where it is.
"""

from __future__ import annotations

import errno
import socket
import threading
from dataclasses import dataclass

from reconciler.errors import CompileError, PlumbError
from reconciler.host.absent import Absent
from reconciler.host.target import Target
from reconciler.kernel.netns import inside
from reconciler.model.cluster import Probe

ATTEMPT_S = 0.5
CLOSED = (errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)  # what the network answers


@dataclass(frozen=True, slots=True)
class ConnectionProbe:
    """Holds when a TCP connection opens; one that must stay closed, when it is refused or stays without an answer.

    A connection that could not even be tried (no namespace, no permission) proves neither.
    """

    name: str
    netns: str
    host: str
    port: int
    expect_open: bool
    deadline_s: float

    def check(self) -> str | None:
        outcome: list[str | None] = []
        thread = threading.Thread(target=lambda: outcome.append(self._attempt()), name=f"probe {self.name}")
        thread.start()
        thread.join()
        return outcome[0] if outcome else "the probe itself failed"

    def _attempt(self) -> str | None:
        target = f"{self.host} port {self.port}"
        try:
            with inside(self.netns):
                self._connect()
        except (OSError, PlumbError) as error:
            if self.expect_open:
                return f"{target} does not open: {error}"
            return None if _is_closed(error) else f"{target} could not be tried: {error}"
        return None if self.expect_open else f"{target} opens, and should not"

    def _connect(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(ATTEMPT_S)
            connection.connect((self.host, self.port))


def _is_closed(error: Exception) -> bool:
    return isinstance(error, OSError) and (isinstance(error, TimeoutError) or error.errno in CLOSED)


def connection_probes(target: Target, missing: Absent) -> list[ConnectionProbe]:
    """Those that start at workloads of this node; a workload that is missing cannot prove anything, at either end."""
    workloads = target.snapshot.workloads
    unproved = {one.workload for one in missing.workloads}
    return [
        ConnectionProbe(
            name=probe.name,
            netns=workloads[probe.source].netns,
            host=_address(probe, target),
            port=probe.port,
            expect_open=probe.expect_open,
            deadline_s=probe.timeout_s,
        )
        for probe in target.snapshot.cluster.probes
        if workloads[probe.source].node == target.facts.node and unproved.isdisjoint((probe.source, probe.host))
    ]


def _address(probe: Probe, target: Target) -> str:
    endpoint = target.facts.endpoints.get(probe.host)
    if endpoint is None:
        return probe.host
    address = endpoint.address4 or endpoint.address6
    if address is None:
        raise CompileError(f"{probe.origin}: probe {probe.name}: {probe.host} has no address that this node knows")
    return str(address)
