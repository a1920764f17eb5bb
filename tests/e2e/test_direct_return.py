"""Direct return with real packets: a backend of another host sees the client, and its answers do not come back over the
host that was asked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from reconciler.daemon.backend_checks import answer
from reconciler.host.service_checks import Check
from reconciler.kernel import netns
from reconciler.model.service import HealthCheck
from reconciler.observe.flow import Reason
from tests.datapath import packets
from tests.e2e.across import Seen, opened, sniffed
from tests.e2e.associations import associated, associates
from tests.e2e.client_outside import CLIENT, LOAD_BALANCER, PORT, WORDS, asks, connected, host, lead, sends
from tests.e2e.daemon_host import NAMESPACE, cluster, policy, until
from tests.e2e.direct_hosts import FAR, ROUTES, SERVICES, WAYS, WEB, Way, direct_hosts, manifests, put, slices
from tests.e2e.hosts import Hosts
from tests.e2e.test_overlay_attacks import counted
from tests.e2e.test_overlay_mtu import DO, IP_MTU, IP_MTU_DISCOVER, IPV6_MTU, IPV6_MTU_DISCOVER

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
OMIT = 5  # IP_PMTUDISC_OMIT of linux/in.h: datagrams are cut for the device, whatever path MTU is known
MTU, LARGE = 1500, 4000
CLOSED = 9  # nobody has this port of the client
PATIENCE_S = 0.3
ANOTHER = {4: "10.98.0.98/32", 6: "fd98::98/128"}


@pytest.fixture(scope="module", params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(scope="module")
def hosts(way: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with direct_hosts(tmp_path_factory.mktemp("hosts"), way) as found:
        yield found


@families
def test_every_backend_sees_the_client(hosts: Hosts, version: int) -> None:
    found = {asks(hosts, host(hosts, 1, version), WEB) for _ in range(24)}
    assert found == {("a1", CLIENT[version]), ("a2", CLIENT[version])}


@families
def test_datagrams_too(hosts: Hosts, version: int) -> None:
    found = {sends(hosts, host(hosts, 1, version), WEB, 1) for _ in range(24)}
    assert found == {("a1", CLIENT[version]), ("a2", CLIENT[version])}


@families
def test_associations_too(hosts: Hosts, version: int) -> None:
    with associated(hosts.space("wire"), CLIENT[version]) as client:
        found = {associates(client, port, host(hosts, 1, version), WEB) for port in range(5000, 5024)}
    assert found == {("a1", CLIENT[version]), ("a2", CLIENT[version])}


@families
def test_the_backends_own_host_may_be_asked_too(hosts: Hosts, version: int) -> None:
    assert asks(hosts, host(hosts, 2, version), FAR) == ("b2", CLIENT[version])


@families
@pytest.mark.parametrize("place", ["h2", "a2", "b2"])
def test_who_is_on_the_backends_host_may_ask_another_one(hosts: Hosts, version: int, place: str) -> None:
    """Such answers leave by no node device, so they go back over the host that was asked."""
    with connected(hosts, host(hosts, 1, version), FAR, place=place) as found:
        assert found.talks(WORDS)
        assert found.name == "b2"


@families
def test_answers_leave_from_the_backends_host(hosts: Hosts, version: int) -> None:
    front, client = LOAD_BALANCER[version], CLIENT[version]
    asks(hosts, front, 80)  # from now on the client knows what the way carries
    wire = hosts.space("wire")
    with sniffed(wire, "p1") as first, sniffed(wire, "p2") as second:
        assert asks(hosts, front, 80) == ("b2", client)
        assert sends(hosts, front, 80, 100) == ("b2", client)
    assert Seen(client, front) in first()
    assert Seen(front, client) in second()
    sources = {packet.source for packet in first() if packet.destination == client}
    assert not sources & {front, hosts.address("b2", version)}


@families
@pytest.mark.parametrize("way", ["ipip-xdp"], indirect=True)
def test_the_kernel_of_the_host_that_is_asked_sees_nothing_where_xdp_wraps(hosts: Hosts, version: int) -> None:
    client = CLIENT[version]
    asks(hosts, LOAD_BALANCER[version], 80)  # from now on the client knows what the way carries
    with sniffed(hosts.space("h1"), "eth0") as seen:
        assert asks(hosts, LOAD_BALANCER[version], 80) == ("b2", client)
    assert Seen(client, LOAD_BALANCER[version]) not in seen()


@families
@pytest.mark.parametrize("number", [1, 2])
def test_a_connection_goes_on_though_the_network_leads_it_to_another_host(
    hosts: Hosts, version: int, number: int
) -> None:
    """The second one has its backend itself."""
    lead(hosts, version, number)
    try:
        with connected(hosts, LOAD_BALANCER[version], 80) as found:
            assert found.talks(WORDS)
            lead(hosts, version, 3 - number)
            assert found.talks(WORDS)
    finally:
        lead(hosts, version, 1)


@families
def test_an_error_about_an_answer_finds_the_backend(hosts: Hosts, version: int) -> None:
    before = unreachable(hosts, version)
    datagram = packets.udp(CLIENT[version], CLOSED, LOAD_BALANCER[version], 80)
    put(hosts, ("wire", "br0"), "h1", datagram)
    until(lambda: unreachable(hosts, version) > before, "the backend hears that nobody has the client's port")


def unreachable(hosts: Hosts, version: int) -> int:
    """Errors of that kind that came to the backend's namespace."""
    with netns.inside(hosts.space("b2")):
        if version == 6:
            lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Icmp6InDestUnreachs"))
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("Icmp:"))
        return int(values[names.index("InDestUnreachs")])


@families
def test_the_client_is_told_what_the_way_to_the_backend_carries(hosts: Hosts, way: Way, version: int) -> None:
    until(lambda: path_mtu(hosts, version) == MTU - way.growth[version], "the client knows the path MTU")


def path_mtu(hosts: Hosts, version: int) -> int:
    """What the client's kernel holds for the path MTU after a datagram that must not be cut and fills its device's."""
    level, discover, asked = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
        if version == 6
        else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
    )
    with opened(hosts.space("wire"), LOAD_BALANCER[version], socket.SOCK_DGRAM) as made:
        made.setsockopt(level, discover, DO)
        made.connect((LOAD_BALANCER[version], 80))
        with suppress(OSError):  # known already
            made.send(bytes(MTU - (28 if version == 4 else 48)))
        return int(made.getsockopt(level, asked))


@families
def test_a_client_that_knows_what_the_way_carries_is_answered_in_fragments(
    hosts: Hosts, way: Way, version: int
) -> None:
    until(lambda: path_mtu(hosts, version) == MTU - way.growth[version], "the client knows the path MTU")
    assert sends(hosts, LOAD_BALANCER[version], 80, LARGE) == ("b2", CLIENT[version])


def test_a_fragment_that_does_not_fit_is_dropped_where_nobody_cuts_it(hosts: Hosts, way: Way) -> None:
    with opened(hosts.space("wire"), LOAD_BALANCER[4], socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, OMIT)
        client.connect((LOAD_BALANCER[4], 80))
        before = counted(hosts, Reason.TOO_LARGE, 1)
        client.send(bytes(LARGE))
        if way.direct_return == "option":
            assert len(client.recv(1 << 16)) > LARGE
        else:
            until(lambda: counted(hosts, Reason.TOO_LARGE, 1) > before, "a fragment is dropped")


@families
def test_policy_at_the_backend_is_about_the_client(hosts: Hosts, version: int) -> None:
    with admitted(hosts, f"{CLIENT[4]}/32", f"{CLIENT[6]}/128"):
        assert asks(hosts, LOAD_BALANCER[version], 80) == ("b2", CLIENT[version])
    refused = connected(hosts, LOAD_BALANCER[version], 80, PATIENCE_S)
    with admitted(hosts, *ANOTHER.values()), pytest.raises(TimeoutError), refused:
        pass


@contextmanager
def admitted(hosts: Hosts, *cidrs: str) -> Iterator[None]:
    """While the block runs, only these reach the backends."""
    blocks = [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]}]
    hosts.write("policies/closed.yaml", policy("closed", "b", ingress=blocks))
    hosts.converge()
    try:
        yield
    finally:
        (hosts.tree / "policies/closed.yaml").unlink()
        hosts.converge()


@families
def test_a_commit_about_others_keeps_connections(hosts: Hosts, version: int) -> None:
    with connected(hosts, LOAD_BALANCER[version], 80) as found:
        assert found.talks()
        hosts.write("policies/other.yaml", policy("other", "a", ingress=[]))
        hosts.converge()
        assert found.talks(WORDS)
    (hosts.tree / "policies/other.yaml").unlink()
    hosts.converge()


@families
def test_where_the_backend_is_gone_connections_are_reset_and_new_ones_refused(hosts: Hosts, version: int) -> None:
    with connected(hosts, LOAD_BALANCER[version], 80) as found:
        assert found.talks()
        with without_backend(hosts):
            with pytest.raises(ConnectionResetError):  # XDP looks at backends once a tick
                until(lambda: not found.talks(), "the connection ends")
            with pytest.raises(ConnectionRefusedError), connected(hosts, LOAD_BALANCER[version], 80):
                pass
    assert asks(hosts, LOAD_BALANCER[version], 80)[0] == "b2"


@contextmanager
def without_backend(hosts: Hosts) -> Iterator[None]:
    """While the block runs, the service has none."""
    hosts.write("services.yaml", manifests(hosts).replace(slices(hosts, "b2"), slices(hosts)))
    hosts.converge()
    try:
        yield
    finally:
        hosts.write("services.yaml", manifests(hosts))
        hosts.converge()


@families
def test_health_checks_reach_backends_as_before(hosts: Hosts, version: int) -> None:
    backend = ip_address(hosts.address("b2", version)), PORT, socket.IPPROTO_TCP
    with netns.inside(hosts.space("h1")):
        assert asyncio.run(answer(Check("default/far", backend, HealthCheck()))) == ""


def test_commands_say_which_backends_answer_directly(hosts: Hosts) -> None:
    with hosts.host(1) as first:
        (web,) = (one for one in first.listing().services() if one["service"] == "default/web")
    backends = {one["source"]: one["direct"] for one in web["ports"][0]["backends"]}
    assert backends == {"Workload default/a1": False, "Workload default/a2": True}


def test_every_way_follows_every_other(tmp_path_factory: pytest.TempPathFactory) -> None:
    with direct_hosts(tmp_path_factory.mktemp("hosts"), Way(ROUTES, "none", {})) as hosts:
        for kind in ("ipip", "option", "geneve", "none", "option", "ipip"):
            services = {**SERVICES, "directReturn": kind}
            hosts.write("cluster.yaml", cluster(network=ROUTES, services=services) + NAMESPACE)
            hosts.converge()
            seen = hosts.underlay(1)[0] if kind == "none" else CLIENT[4]
            assert asks(hosts, LOAD_BALANCER[4], 80) == ("b2", seen), kind
