"""Services from outside, with real packets: a client on the segment of two hosts, backends on both."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.kernel import netns
from tests.e2e.across import opened, sniffed
from tests.e2e.associations import associated, associates
from tests.e2e.client_outside import (
    BACKENDS,
    CLIENT,
    LOAD_BALANCER,
    PORT,
    Servers,
    asks,
    connected,
    host,
    sends,
    set_out,
)
from tests.e2e.daemon_host import policy
from tests.e2e.hosts import Hosts, made_hosts

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
MODES = {"routes": {"directRoutes": True}, "vxlan": {"mode": "vxlan"}, "geneve": {"mode": "geneve"}}
HOST_AMONG_WORKLOADS = {4: "10.47.1.1", 6: "fd47:1::1"}
FEW = 10  # packets: the end of the connection before may be among them
DOUBLE = "ipFamilyPolicy: RequireDualStack"
SERVICES = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  {DOUBLE}
  selector: {{app: a}}
  ports:
    - {{name: tcp, port: 80, targetPort: {PORT}, nodePort: 30080}}
    - {{name: udp, port: 80, protocol: UDP, targetPort: {PORT}, nodePort: 30080}}
    - {{name: sctp, port: 80, protocol: SCTP, targetPort: {PORT}, nodePort: 30080}}
---
apiVersion: v1
kind: Service
metadata: {{name: local}}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  {DOUBLE}
  selector: {{app: b}}
  ports: [{{port: 80, targetPort: {PORT}, nodePort: 30081}}]
---
apiVersion: v1
kind: Service
metadata: {{name: limited}}
spec:
  type: LoadBalancer
  {DOUBLE}
  externalIPs: ["{LOAD_BALANCER[4]}", "{LOAD_BALANCER[6]}"]
  loadBalancerSourceRanges: [RANGES]
  selector: {{app: a}}
  ports: [{{port: 80, targetPort: {PORT}, nodePort: 30082}}]
"""
ADMITTED = SERVICES.replace("RANGES", f'{CLIENT[4]}/32, "{CLIENT[6]}/128"')


@pytest.fixture(scope="module", params=MODES, ids=str)
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    settings = {"network": MODES[request.param], "services": {"cidrs": ["10.96.0.0/24", "fd96::/112"]}}
    with made_hosts(tmp_path_factory.mktemp("hosts"), **settings) as found, ExitStack() as stack:
        found.write("services.yaml", ADMITTED)
        found.converge()
        set_out(found)
        Servers(found, stack)
        yield found


@families
def test_a_node_port_reaches_backends_of_both_hosts_and_answers_in_its_own_name(hosts: Hosts, version: int) -> None:
    found = {asks(hosts, host(hosts, 1, version), 30080) for _ in range(24)}
    assert {name for name, _ in found} == {"a1", "a2"}
    seen = dict(found)
    assert seen["a1"] == CLIENT[version]
    assert seen["a2"] in (host(hosts, 1, version), HOST_AMONG_WORKLOADS[version])


@families
def test_a_backend_of_another_host_is_reached_past_the_stack(hosts: Hosts, version: int) -> None:
    found = [_counted(hosts, version) for _ in range(24)]
    assert max(packets for name, packets in found if name == "a2") < FEW
    assert min(packets for name, packets in found if name == "a1") > FEW


@families
def test_a_neighbour_that_was_not_heard_of_for_a_while_is_asked_again(hosts: Hosts, version: int) -> None:
    """Of the IP version that leaves: an overlay's is IPv4."""
    there, mac = hosts.underlay(2), hosts.mac("h2", "eth0")
    for one in there:
        hosts.ip("h1", *f"neighbour replace {one} lladdr {mac} dev eth0 nud stale".split())
    assert "a2" in {asks(hosts, host(hosts, 1, version), 30080)[0] for _ in range(24)}
    assert sum("STALE" in hosts.ip("h1", "neighbour", "show", one) for one in there) < len(there)


def _counted(hosts: Hosts, version: int) -> tuple[str, int]:
    """Who answers, and how many packets the host's stack forwarded in the meantime."""
    before = _forwarded(hosts, version)
    name, _ = asks(hosts, host(hosts, 1, version), 30080)
    return name, _forwarded(hosts, version) - before


def _forwarded(hosts: Hosts, version: int) -> int:
    """Source: RFC 4293, ipSystemStatsOutForwDatagrams; kernel net/ipv4/proc.c and net/ipv6/proc.c."""
    with netns.inside(hosts.space("h1")):
        found = Path("/proc/thread-self/net", "snmp" if version == 4 else "snmp6").read_text()
    if version == 6:
        return int(found.split("Ip6OutForwDatagrams")[1].split()[0])
    names, values = (line.split() for line in found.splitlines()[:2])
    return int(values[names.index("ForwDatagrams")])


@families
@pytest.mark.parametrize("size", [1, 4000])
def test_datagrams_too_and_in_fragments(hosts: Hosts, version: int, size: int) -> None:
    found = {sends(hosts, host(hosts, 1, version), 30080, size)[0] for _ in range(24)}
    assert found == {"a1", "a2"}


@families
def test_associations_too(hosts: Hosts, version: int) -> None:
    with associated(hosts.space("wire"), CLIENT[version]) as client:
        asked = host(hosts, 1, version), 30080
        found = dict(associates(client, port, *asked) for port in range(5000, 5024))
    assert found.keys() == {"a1", "a2"}
    assert found["a1"] == CLIENT[version]


@families
def test_a_connection_whose_backends_are_gone_is_reset(hosts: Hosts, version: int) -> None:
    with opened(hosts.space("wire"), host(hosts, 1, version), socket.SOCK_STREAM) as client:
        client.connect((host(hosts, 1, version), 30080))
        client.recv(64)
        hosts.write("services.yaml", ADMITTED.replace("selector: {app: a}", "selector: {app: none}"))
        hosts.converge()
        try:
            client.sendall(bytes(10_000))
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        finally:
            hosts.write("services.yaml", ADMITTED)
            hosts.converge()


@families
def test_a_local_service_asks_backends_here_and_they_see_the_client(hosts: Hosts, version: int) -> None:
    found = {asks(hosts, host(hosts, 2, version), 30081) for _ in range(6)}
    assert found == {("b2", CLIENT[version])}


@families
def test_source_ranges_decide_who_is_served(hosts: Hosts, version: int) -> None:
    assert asks(hosts, LOAD_BALANCER[version], 80)[0] in ("a1", "a2")
    other = {4: "10.98.0.98", 6: "fd98::98"}[version]
    with _another_address(hosts, other), opened(hosts.space("wire"), other, socket.SOCK_STREAM) as client:
        client.bind((other, 0))
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.connect((LOAD_BALANCER[version], 80))


@contextmanager
def _another_address(hosts: Hosts, address: str) -> Iterator[None]:
    """While the block runs, the client has it too."""
    where = f"{address}/{64 if ':' in address else 24} dev br0".split()
    hosts.ip("wire", "address", "add", *where, *["nodad"] * (":" in address))
    yield
    hosts.ip("wire", "address", "del", *where)


@families
def test_the_client_never_sees_a_backends_address(hosts: Hosts, version: int) -> None:
    with sniffed(hosts.space("wire"), "br0") as seen:
        for _ in range(8):
            asks(hosts, host(hosts, 1, version), 30080)
    sources = {packet.source for packet in seen() if packet.destination == CLIENT[version]}
    assert host(hosts, 1, version) in sources
    assert not sources & {hosts.address(name, version) for name in BACKENDS}


@families
def test_policy_is_about_the_backend(hosts: Hosts, version: int) -> None:
    closed = policy("closed", "a", ingress=[{"from": [{"ipBlock": {"cidr": f"{CLIENT[4]}/32"}}]}])
    hosts.write("policies/closed.yaml", closed)
    hosts.converge()
    try:
        if version == 4:
            found = set()
            for _ in range(12):
                with suppress(OSError):
                    found.add(_quick(hosts, host(hosts, 1, version)))
            assert found == {"a1"}  # the one of this host sees the client; the other one sees a node
        else:
            with pytest.raises(TimeoutError):
                _quick(hosts, host(hosts, 1, version))
    finally:
        (hosts.tree / "policies/closed.yaml").unlink()
        hosts.converge()


def _quick(hosts: Hosts, address: str) -> str:
    with connected(hosts, address, 30080, patience_s=0.3) as found:
        return found.name
