"""Direct return while hosts are at different commits: a backend answers directly what its host is known to take."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.across import opened
from tests.e2e.client_outside import CLIENT, LOAD_BALANCER, WORDS, asks, connected
from tests.e2e.daemon_host import DEADLINE_S, until
from tests.e2e.hosts import Hosts
from tests.e2e.hosts_apart import Asking, HostsApart, hosts_apart

pytestmark = pytest.mark.root
ways = pytest.mark.parametrize("way", ["option", "ipip", "geneve"])
FIRST = "10.98.0.1"
OVER_THE_FIRST, DIRECTLY = ("b2", FIRST), ("b2", CLIENT[4])
PATIENCE_S = 0.3
PROBES = [{"name": "cannot hold", "from": "default/a2", "to": "192.0.2.1", "port": 9, "timeout": 0.2}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsApart]:
    with hosts_apart(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture
def hosts(made: HostsApart) -> Iterator[HostsApart]:
    """Ends as it began."""
    yield made
    for number in made.numbers:
        made.go(number, "none")
    until(lambda: made.taken(2) == "none", "the first host hears that the second one takes nothing")


def asked(hosts: Hosts) -> tuple[str, str]:
    """Which backend answers by the first host, and whom that one sees."""
    return asks(hosts, LOAD_BALANCER[4], 80)


def both_go(hosts: HostsApart, way: str, **spec: Any) -> None:
    for number in hosts.numbers:
        hosts.go(number, way, **spec)
    until(hosts.is_direct, "the first host hears what the second one takes")


@ways
@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["asked-first", "backend-first"])
def test_a_client_is_served_at_every_moment_while_hosts_come_to_a_way_one_by_one(
    hosts: HostsApart, way: str, order: tuple[int, int]
) -> None:
    with Asking(hosts) as asking:
        until(lambda: asking.seen, "the client is served")
        for number in order:
            hosts.go(number, way)
        until(lambda: asking.seen[-1:] == [CLIENT[4]], "the backend's host answers directly")
    assert asking.lost == []
    assert asking.seen == sorted(asking.seen, key=[FIRST, CLIENT[4]].index)


@ways
def test_backends_of_a_host_that_stays_at_an_earlier_commit_go_on_being_served(hosts: HostsApart, way: str) -> None:
    hosts.go(1, way)
    assert (hosts.taken(2), hosts.is_direct()) == ("none", False)
    assert asked(hosts) == OVER_THE_FIRST


@ways
@pytest.mark.parametrize("other", ["none", "option", "ipip", "geneve"])
def test_so_do_those_of_a_host_that_comes_to_a_later_one_first(hosts: HostsApart, way: str, other: str) -> None:
    both_go(hosts, way)
    assert asked(hosts) == DIRECTLY
    hosts.go(2, other)
    until(lambda: hosts.taken(2) == other, "the first host hears what the second one takes")
    until(lambda: hosts.is_direct() == (way == other), "the first host goes by it")
    assert asked(hosts) == (DIRECTLY if way == other else OVER_THE_FIRST)


@ways
@pytest.mark.parametrize("xdp", ["off", "generic"])
@pytest.mark.parametrize("other", ["none", "option", "ipip", "geneve"])
def test_flows_that_are_there_go_on_too(hosts: HostsApart, way: str, xdp: str, other: str) -> None:
    both_go(hosts, way, xdp={"mode": xdp})
    with connected(hosts, LOAD_BALANCER[4], 80) as found, talking(hosts) as talks:
        assert talks() == DIRECTLY
        hosts.go(2, other, xdp={"mode": xdp})
        until(lambda: hosts.taken(2) == other, "the first host hears what the second one takes")
        until(lambda: hosts.is_direct() == (way == other), "the first host goes by it")
        assert found.talks(WORDS)
        until(lambda: talks() == (DIRECTLY if way == other else OVER_THE_FIRST), "the next datagrams are answered")


@contextmanager
def talking(hosts: HostsApart) -> Iterator[Callable[[], tuple[str, str] | None]]:
    """A flow of datagrams; each call says who answers the next one, and whom that one sees. XDP looks once a tick."""
    with opened(hosts.space("wire"), LOAD_BALANCER[4], socket.SOCK_DGRAM) as client:
        client.connect((LOAD_BALANCER[4], 80))
        client.settimeout(PATIENCE_S)

        def talks() -> tuple[str, str] | None:
            try:
                client.send(b"word")
                name, seen, _ = client.recv(1 << 16).decode().split(" ", 2)
            except TimeoutError:
                return None
            return name, seen

        yield talks


def test_and_those_of_one_that_stays_when_this_host_comes_to_another_way(hosts: HostsApart) -> None:
    both_go(hosts, "ipip")
    hosts.go(1, "geneve")
    assert (hosts.taken(2), hosts.is_direct()) == ("ipip", False)
    assert asked(hosts) == OVER_THE_FIRST


def test_a_daemon_that_begins_again_takes_what_it_took(hosts: HostsApart) -> None:
    both_go(hosts, "ipip")
    with Asking(hosts) as asking:
        hosts.end(2)
        hosts.begin(2)
        until(lambda: hosts.client(2).get("/v1/status")["state"] == "converged", "the second host is converged")
        until(lambda: asking.seen, "the client is served")
    assert (set(asking.seen), asking.lost) == ({CLIENT[4]}, [])
    assert hosts.taken(2) == "ipip"


def test_so_does_a_host_on_which_a_commit_with_another_way_fails(hosts: HostsApart) -> None:
    both_go(hosts, "ipip")
    commit = hosts.commit_of("geneve", probes=PROBES)
    hosts.follow(2, commit)
    said = hosts.client(2).get("/v1/wait", commit=commit, timeout_s=DEADLINE_S)
    assert said["result"] == "failed"
    until(lambda: hosts.taken(2) == "ipip", "the first host hears that the second one is as it was")
    until(hosts.is_direct, "the backend's host answers directly again")
    assert asked(hosts) == DIRECTLY
