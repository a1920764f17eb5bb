"""A network that spreads flows over hosts leads ICMP errors about answers to a host that does not know the flow: the
backend hears of them all the same, so it learns what the way to its client carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.client_outside import LOAD_BALANCER, WORDS, connected, host, lead
from tests.e2e.daemon_host import make_namespace
from tests.e2e.direct_hosts import WAYS, direct_hosts
from tests.e2e.hosts import Hosts

pytestmark = pytest.mark.root
BEYOND = {
    4: ("198.51.100.0/24", "198.51.100.1", "198.51.100.9"),
    6: ("2001:db8:7::/64", "2001:db8:7::1", "2001:db8:7::9"),
}
NARROW = 1300
OF_ERRORS = 100  # table of routes


@pytest.fixture(scope="module", params=WAYS, ids=str)
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The client is behind a router, which knows a narrow way to it."""
    with direct_hosts(tmp_path_factory.mktemp("hosts"), WAYS[request.param]) as found:
        make_namespace(found.space("client"))
        there = found.space("client").rpartition("/")[2]
        found.ip("wire", *f"link add beyond type veth peer name eth0 netns {there}".split())
        for space, device in (("wire", "beyond"), ("client", "eth0")):
            found.ip(space, "link", "set", device, "up")
        for version in BEYOND:
            _route(found, version)
        yield found


def _route(hosts: Hosts, version: int) -> None:
    """The router routes, everybody knows the way to the client, and that one its way out."""
    network, router, client = BEYOND[version]
    length, family = network.rpartition("/")[2], f"-{version}"
    for space, device, address in (("wire", "beyond", router), ("client", "eth0", client)):
        hosts.ip(space, "address", "add", f"{address}/{length}", "dev", device, *["nodad"] * (version == 6))
    hosts.set("wire", f"net/ipv{version}/conf/all/forwarding", "1")
    hosts.ip("wire", family, "route", "add", client, "dev", "beyond", "mtu", "lock", str(NARROW))
    hosts.ip("client", family, "route", "add", "default", "via", router)
    for number in hosts.numbers:
        hosts.ip(f"h{number}", family, "route", "add", network, "via", host(hosts, 99, version))


@contextmanager
def spread(hosts: Hosts, version: int, *, flows: int, errors: int) -> Iterator[None]:
    """While the block runs, clients' flows come to one host, and errors of the router itself to another one."""
    lead(hosts, version, flows)
    rule = f"iif lo to {LOAD_BALANCER[version]} lookup {OF_ERRORS}".split()
    way = f"default via {host(hosts, errors, version)} table {OF_ERRORS}".split()
    hosts.ip("wire", f"-{version}", "rule", "add", *rule)
    hosts.ip("wire", f"-{version}", "route", "replace", *way)
    try:
        yield
    finally:
        hosts.ip("wire", f"-{version}", "rule", "del", *rule)
        lead(hosts, version, 1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("flows", "errors"), [(1, 2), (2, 1)], ids=["to-the-backends-host", "to-another"])
def test_a_backend_learns_what_the_way_to_its_client_carries(
    hosts: Hosts, version: int, flows: int, errors: int
) -> None:
    hosts.ip("b2", f"-{version}", "route", "flush", "cache")  # what the test before has taught it
    with (
        spread(hosts, version, flows=flows, errors=errors),
        connected(hosts, LOAD_BALANCER[version], 80, place="client") as found,
    ):
        assert found.talks(WORDS)
        assert (found.name, found.seen) == ("b2", BEYOND[version][2])
    assert f"mtu {NARROW}" in hosts.ip("b2", f"-{version}", "route", "get", BEYOND[version][2])
