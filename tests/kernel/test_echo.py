"""ICMP echo in a namespace, over both kinds of sockets, and who is reachable by it."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from reconciler.daemon.health import Health
from reconciler.model.cluster import Cluster
from reconciler.model.cluster import Health as Settings
from reconciler.model.facts import Facts, Peer
from reconciler.model.origin import Origin
from reconciler.observe.echo import Echo

from .hands import DEADLINE_S, ip, ip_in

NOWHERE = Origin("", 0, "", "", "")
OFTEN = Settings(interval_s=0.05, failures=3)


@pytest.fixture(params=["1 0", "0 0"], ids=["raw socket", "ping socket"])
def kind(request: pytest.FixtureRequest, host: str) -> None:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text(request.param)


def heard(echo: Echo) -> list[Any]:
    assert select.select([echo], [], [], DEADLINE_S)[0]
    return echo.read()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_answer_names_the_number_and_who_it_is_from(kind: None, address: str) -> None:
    with closing(Echo(ip_address(address).version)) as echo:
        assert echo.send(ip_address(address), 7)
        assert heard(echo) == [(ip_address(address), 7)]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_pings_of_others_are_not_ours(kind: None, address: str) -> None:
    version = ip_address(address).version
    with closing(Echo(version)) as other, closing(Echo(version)) as ours:
        other.send(ip_address(address), 1)
        heard(other)
        ours.send(ip_address(address), 2)
        assert heard(ours) == [(ip_address(address), 2)]


def test_what_has_no_route_is_not_sent(host: str) -> None:
    with closing(Echo(4)) as echo:
        assert not echo.send(ip_address("192.0.2.1"), 1)


@pytest.fixture
def beta(host: str, namespace: Callable[[str], str]) -> str:
    """Another node on a wire: 192.0.2.2 and fd00::2; we are .1 and ::1. Its namespace."""
    path = namespace("beta")
    ip(f"link add wire type veth peer name wire netns {Path(path).name}")
    for run, number in ((ip, 1), (lambda command: ip_in(path, command), 2)):
        run(f"address add 192.0.2.{number}/24 dev wire")
        run(f"address add fd00::{number}/64 dev wire nodad")
        run("link set wire up")
    return path


def peer(name: str, *addresses: str) -> Peer:
    four = next((IPv4Address(one) for one in addresses if "." in one), None)
    six = next((IPv6Address(one) for one in addresses if ":" in one), None)
    return Peer(name, NOWHERE, four, six)


def cluster(settings: Settings) -> Cluster:
    return Cluster("demo", NOWHERE, health=settings)


def knowing(peers: dict[str, Peer]) -> Facts:
    return Facts("alpha", {}, {}, frozenset(), peers=peers)


def watched(peers: dict[str, Peer], done: Callable[[Health], object], settings: Settings = OFTEN) -> list[Any]:
    """Runs until `done`; what the changes were."""
    changes: list[Any] = []

    async def run() -> None:
        health = Health(lambda: changes.append([one.node for one in health.unreachable()]))
        health.follow(knowing(peers), cluster(settings))
        running = asyncio.create_task(health.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not done(health):
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            health.close()

    asyncio.run(run())
    return changes


def by_node(health: Health) -> dict[str, Any]:
    return {one["node"]: one["reachable"] for one in health.counters()}


def test_a_node_that_answers_is_reachable_and_one_that_does_not_is_named(beta: str) -> None:
    peers = {"beta": peer("beta", "192.0.2.2"), "gamma": peer("gamma", "192.0.2.9"), "delta": peer("delta", "fd00::2")}
    changes = watched(peers, lambda health: by_node(health) == {"beta": True, "gamma": False, "delta": True})
    assert changes[-1] == ["gamma"]


def test_a_wire_that_is_cut_and_healed_is_noticed(beta: str) -> None:
    peers = {"beta": peer("beta", "192.0.2.2")}

    done: list[str] = []

    def cut_and_healed(health: Health) -> bool:
        if by_node(health)["beta"] and not done:
            ip("link set wire down")
            done.append("cut")
        if health.unreachable() and done == ["cut"]:
            ip("link set wire up")
            done.append("healed")
        return "healed" in done and bool(by_node(health)["beta"])

    changes = watched(peers, cut_and_healed)
    assert (changes[0], changes[-1]) == (["beta"], [])


def test_who_has_no_address_is_not_probed(host: str) -> None:
    health = Health(lambda: None)
    health.follow(knowing({"beta": peer("beta")}), cluster(OFTEN))
    assert health.counters() == []


def test_counters_survive_news_of_other_nodes(beta: str) -> None:
    grown = {"beta": peer("beta", "192.0.2.2"), "gamma": peer("gamma", "192.0.2.9")}

    def done(health: Health) -> bool:
        if health.counters()[0]["answered"] < 1:
            return False
        before = health.counters()[0]["answered"]
        health.follow(knowing(grown), cluster(OFTEN))
        assert {one["node"]: one["answered"] for one in health.counters()} == {"beta": before, "gamma": 0}
        return True

    watched({"beta": peer("beta", "192.0.2.2")}, done)


def test_probing_can_be_turned_off(host: str) -> None:
    health = Health(lambda: None)
    health.follow(knowing({"beta": peer("beta", "192.0.2.2")}), cluster(Settings(interval_s=0)))
    assert health.counters() == []
