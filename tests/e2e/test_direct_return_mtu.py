"""A router between two hosts that carries less than their devices: a client of a backend behind it is told so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.e2e.across import opened
from tests.e2e.client_outside import CLIENT, LOAD_BALANCER, asks, host, sends
from tests.e2e.daemon_host import until
from tests.e2e.direct_hosts import WAYS, Way, direct_hosts
from tests.e2e.hosts import STRANGER, Hosts
from tests.e2e.test_overlay_mtu import DO, IP_MTU, IP_MTU_DISCOVER, IPV6_MTU, IPV6_MTU_DISCOVER

pytestmark = pytest.mark.root
NARROW = 1400
MTUS = {4: (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU), 6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)}


@pytest.fixture(scope="module", params=[name for name, one in WAYS.items() if one.direct_return != "option"], ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(scope="module")
def hosts(way: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with direct_hosts(tmp_path_factory.mktemp("hosts"), way) as found:
        for version in (4, 6):
            found.set("wire", f"net/ipv{version}/conf/all/forwarding", "1")
        for device in ("all", "br0"):
            found.set("wire", f"net/ipv4/conf/{device}/send_redirects", "0")
        if "mode" in way.network:
            _narrow(found, 4, host(found, 2, 4), ["dev", "br0"])
        else:
            for version in (4, 6):
                _narrow(found, version, found.address("b2", version), ["via", host(found, 2, version)])
        yield found


def _narrow(hosts: Hosts, version: int, target: str, onward: list[str]) -> None:
    """What the first host wraps for this address goes over the router, whose way to it is `onward`."""
    hosts.ip("h1", f"-{version}", "route", "add", target, "via", host(hosts, STRANGER, version), "dev", "eth0")
    hosts.ip("wire", f"-{version}", "route", "add", target, *onward, "mtu", "lock", str(NARROW))


@pytest.mark.parametrize("version", [4, 6])
def test_the_client_is_told_what_the_way_between_the_hosts_carries(hosts: Hosts, way: Way, version: int) -> None:
    until(lambda: path_mtu(hosts, version) == NARROW - way.growth[version], "the client knows the path MTU")
    assert asks(hosts, LOAD_BALANCER[version], 80) == ("b2", CLIENT[version])
    assert sends(hosts, LOAD_BALANCER[version], 80, NARROW - way.growth[version] - 48) == ("b2", CLIENT[version])


def path_mtu(hosts: Hosts, version: int) -> int:
    """What the client's kernel holds for the path MTU after a datagram as large as it held that to be before."""
    level, discover, asked = MTUS[version]
    with opened(hosts.space("wire"), LOAD_BALANCER[version], socket.SOCK_DGRAM) as made:
        made.setsockopt(level, discover, DO)
        made.connect((LOAD_BALANCER[version], 80))
        with suppress(OSError):  # an answer to the one before
            made.send(bytes(int(made.getsockopt(level, asked)) - (28 if version == 4 else 48)))
        return int(made.getsockopt(level, asked))
