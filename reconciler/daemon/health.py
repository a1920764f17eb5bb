"""Which other nodes can be reached: each is pinged now and then, spread over time so that nothing is flooded.

The node path is the network between nodes. The workload path goes to the other's health endpoint, as packets to one of
its workloads go: through the tunnels, if there are any, up to the programs of the endpoint. Of a node that announced
none it is the overlay alone, to the address that the node itself has among workloads. A node that has not answered a
few times in a row is unreachable since the first of them, until it answers again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from reconciler.errors import PermissionMissing
from reconciler.model.cluster import Cluster
from reconciler.model.cluster import Health as Settings
from reconciler.model.facts import Facts, RemoteEndpoints
from reconciler.model.identity import Reserved
from reconciler.model.overlay import reserved
from reconciler.observe.echo import Address, Echo

log = logging.getLogger(__name__)

MOST_PER_S = 50.0
IDLE_S = 1.0
JITTER = 0.2

Key = tuple[str, str, Address]  # node, path, address


@dataclass(slots=True)
class Probed:
    """One path to a node. `sent` and `answered` only grow; `reachable` is None until that is known."""

    node: str
    path: str
    address: Address
    sent: int = 0
    answered: int = 0
    awaiting: int = 0  # the number of the probe that is not answered yet, 0 if there is none
    sent_at: float = 0.0
    lost: int = 0
    lost_since: str = ""
    rtt_ms: float = 0.0
    reachable: bool | None = None
    since: str = ""


class Health:
    """Belongs to the daemon's event loop. `changed` is called when a node can, or can no longer, be reached."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._settings = Settings()
        self._probed: dict[Key, Probed] = {}
        self._awaited: dict[int, Probed] = {}
        self._numbers = itertools.count(1)
        self._echoes: dict[int, Echo] = {}
        self.problem = ""

    def follow(self, facts: Facts, cluster: Cluster) -> None:
        """What is to be probed from now on; who is among it already keeps its counters."""
        self._settings = cluster.health
        paths = _paths(facts, cluster) if cluster.health.interval_s else ()
        wanted = {(one.node, one.path, one.address): one for one in paths}
        if wanted.keys() != self._probed.keys():
            self._probed = {key: self._probed.get(key, one) for key, one in wanted.items()}

    def close(self) -> None:
        for echo in self._echoes.values():
            asyncio.get_running_loop().remove_reader(echo.fileno())
            echo.close()
        self._echoes.clear()

    async def run(self) -> None:
        while True:
            probed = list(self._probed.values())
            if not probed:
                await asyncio.sleep(IDLE_S)
                continue
            pause_s = max(self._settings.interval_s / len(probed), 1 / MOST_PER_S)
            for one in probed:
                self._probe(one)
                await asyncio.sleep(pause_s * random.uniform(1 - JITTER, 1 + JITTER))

    def unreachable(self) -> list[Probed]:
        return [one for one in self._probed.values() if one.reachable is False]

    def summary(self) -> dict[str, Any]:
        """For the status of the host."""
        return {
            "reachable": sum(one.reachable is True for one in self._probed.values()),
            "unreachable": [
                {"node": one.node, "path": one.path, "address": str(one.address), "since": one.since}
                for one in self.unreachable()
            ],
            "problem": self.problem,
        }

    def counters(self) -> list[dict[str, Any]]:
        """Every path, for metrics and for who wants to know it all."""
        return [
            {
                "node": one.node,
                "path": one.path,
                "address": str(one.address),
                "reachable": one.reachable,
                "since": one.since,
                "sent": one.sent,
                "answered": one.answered,
                "rtt_ms": round(one.rtt_ms, 3),
            }
            for one in self._probed.values()
        ]

    def _probe(self, one: Probed) -> None:
        if one.awaiting:
            self._awaited.pop(one.awaiting, None)
            self._lost(one)
        echo = self._echo(one.address.version)
        if echo is None:
            one.awaiting = 0
            return
        one.awaiting = next(self._numbers)
        one.sent += 1
        one.sent_at = time.monotonic()
        self._awaited[one.awaiting] = one
        echo.send(one.address, one.awaiting)  # what cannot be sent is not answered either

    def _echo(self, version: int) -> Echo | None:
        if version not in self._echoes:
            try:
                echo = Echo(version)
            except PermissionMissing as error:
                if not self.problem:
                    log.warning("no health error=%s; %s", error, error.remedy)
                self.problem = f"{error}; {error.remedy}"
                return None
            self.problem = ""
            self._echoes[version] = echo
            asyncio.get_running_loop().add_reader(echo.fileno(), self._read, echo)
        return self._echoes[version]

    def _read(self, echo: Echo) -> None:
        for source, number in echo.read():
            one = self._awaited.get(number)
            if one is not None and one.address == source:
                del self._awaited[number]
                self._answered(one)

    def _answered(self, one: Probed) -> None:
        one.rtt_ms = (time.monotonic() - one.sent_at) * 1000
        one.answered += 1
        one.awaiting = one.lost = 0
        if one.reachable is not True:
            self._become(one, True, _now())

    def _lost(self, one: Probed) -> None:
        one.lost += 1
        if one.lost == 1:
            one.lost_since = _now()
        if one.lost >= self._settings.failures and one.reachable is not False:
            self._become(one, False, one.lost_since)

    def _become(self, one: Probed, reachable: bool, since: str) -> None:
        was, one.reachable, one.since = one.reachable, reachable, since
        if not reachable:
            log.warning("unreachable node=%s path=%s address=%s since=%s", one.node, one.path, one.address, since)
        elif was is False:
            log.info("reachable again node=%s path=%s address=%s", one.node, one.path, one.address)
        if was is not None or not reachable:
            self._changed()


def _paths(facts: Facts, cluster: Cluster) -> Iterable[Probed]:
    """In an order of chance: many hosts that start together do not ask the same node at the same time."""
    found, endpoints = [], _health_endpoints(facts.remote)
    for peer in facts.peers.values():
        if (address := peer.address4 or peer.address6) is not None:
            found.append(Probed(peer.name, "node", address))
        inside = endpoints.get(peer.name) or reserved(cluster, peer)
        found += [Probed(peer.name, "workload", address) for address in inside[:1]]
    return random.sample(found, len(found))


def _health_endpoints(remote: RemoteEndpoints) -> dict[str, list[Address]]:
    """node -> addresses of its health endpoint, as it announced them."""
    found: dict[str, list[Address]] = {}
    for row in remote.rows[remote.rows["identity"] == Reserved.HEALTH]:
        address = ip_address(int(row["high"]) << 64 | int(row["low"]))
        inside = found.setdefault(remote.nodes[row["endpoint"]], [])
        inside.append(getattr(address, "ipv4_mapped", None) or address)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
