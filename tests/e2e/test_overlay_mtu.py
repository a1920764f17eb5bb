"""What is larger than the way to the other node: its sender is told, as by any router."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.e2e.across import PORT, bulk, listening, opened, pings
from tests.e2e.hosts import Hosts, made_hosts

pytestmark = pytest.mark.root

IP_MTU_DISCOVER, IP_MTU, DO = 10, 14, 2  # linux/in.h
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24  # linux/in6.h
DEADLINE_S, PAUSE_S = 10.0, 0.02


@pytest.fixture(scope="module", params=["vxlan", "geneve"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Workloads whose MTU is that of the network between the nodes, and so too large for a tunnel."""
    with made_hosts(tmp_path_factory.mktemp("hosts"), network={"mode": request.param}, mtu=1500) as found:
        yield found


def path_mtu(hosts: Hosts, workload: str, address: str, size: int) -> int:
    """What the workload's kernel holds for the path MTU after a datagram of that size that must not be cut."""
    level, discover, asked = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
        if ":" in address
        else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
    )
    with opened(hosts.space(workload), address, socket.SOCK_DGRAM) as made:
        made.setsockopt(level, discover, DO)
        made.connect((address, PORT))
        with suppress(OSError):  # known already
            made.send(bytes(size))
        return int(made.getsockopt(level, asked))


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(PAUSE_S)


@pytest.mark.parametrize("version", [4, 6])
def test_a_workload_is_told_what_the_tunnel_carries(hosts: Hosts, version: int) -> None:
    address = hosts.address("a2", version)
    with listening(hosts.space("a2"), address, socket.SOCK_DGRAM):
        eventually(lambda: path_mtu(hosts, "a1", address, 1440) == 1450)


@pytest.mark.parametrize("version", [4, 6])
def test_bulk_of_a_workload_that_sends_too_much_at_first_arrives(hosts: Hosts, version: int) -> None:
    sent, received = bulk(hosts.space("b1"), hosts.space("b2"), hosts.address("b2", version))
    assert received == sent


@pytest.mark.parametrize("hosts", ["vxlan"], indirect=True)
def test_what_may_be_cut_is_cut(hosts: Hosts) -> None:
    assert pings(hosts.space("b1"), hosts.address("a2"), "-s1472", "-Mdont")


def test_a_narrower_way_between_the_nodes_is_told_too(hosts: Hosts) -> None:
    """A router between the nodes reports the outer packet as too large; the sender of the inner one hears of it."""
    address = hosts.address("b2")
    hosts.ip("h1", "route", "add", "10.98.0.2/32", "via", "10.98.0.99", "dev", "eth0")
    hosts.ip("wire", "route", "add", "10.98.0.2/32", "dev", "br0", "mtu", "1300")
    hosts.set("wire", "net/ipv4/ip_forward", "1")
    hosts.set("wire", "net/ipv4/conf/all/send_redirects", "0")
    hosts.set("wire", "net/ipv4/conf/br0/send_redirects", "0")
    with listening(hosts.space("b2"), address, socket.SOCK_DGRAM):
        eventually(lambda: path_mtu(hosts, "a1", address, 1350) == 1250)
