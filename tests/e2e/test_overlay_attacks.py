"""Packets to the overlay's port that nobody should believe: dropped, and counted with a reason of their own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from reconciler.kernel import netns
from reconciler.model.identity import FIRST_CLUSTER, Reserved
from reconciler.observe.flow import Reason
from tests.datapath import packets
from tests.e2e.across import PORT, listening
from tests.e2e.hosts import STRANGER, Hosts, made_hosts

pytestmark = pytest.mark.root

PORTS = {"vxlan": 8472, "geneve": 6081}
HEADERS = {"vxlan": b"\x08\0\0\0", "geneve": b"\0\0\x65\x58"}
DEADLINE_S, PAUSE_S = 10.0, 0.02


@pytest.fixture(scope="module", params=["vxlan", "geneve"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def hosts(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts; the second is the one that is attacked. Workloads leave with their host's address."""
    spec = {"network": {"mode": mode}, "masquerade": {"enabled": True}}
    with made_hosts(tmp_path_factory.mktemp("hosts"), 3, **spec) as found:
        yield found


@pytest.fixture
def victim(hosts: Hosts) -> Iterator[socket.socket]:
    """A socket of the workload that is attacked; nothing may arrive at it."""
    with listening(hosts.space("a2"), hosts.address("a2"), socket.SOCK_DGRAM) as found:
        found.setblocking(False)
        yield found


@dataclass(frozen=True, slots=True)
class Attack:
    """Datagrams to the second host's overlay."""

    hosts: Hosts
    mode: str

    def send(self, space: str, node: str, vni: int, source: str, destination: str) -> None:
        """From a namespace and its address `node`: a datagram of a workload's, wrapped."""
        inner = packets.udp(source, 40000, destination, PORT)
        payload = HEADERS[self.mode] + vni.to_bytes(3, "big") + b"\0" + inner
        with netns.inside(self.hosts.space(space)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.bind((node, 0))
            made.sendto(payload, ("10.98.0.2", PORTS[self.mode]))


@pytest.fixture
def attack(hosts: Hosts, mode: str) -> Attack:
    return Attack(hosts, mode)


def counted(hosts: Hosts, reason: Reason, number: int = 2) -> int:
    with hosts.host(number) as host:
        counters = host.counters()
    assert counters is not None
    return counters.by_reason[reason].packets


def refused(hosts: Hosts, reason: Reason, send: Callable[[], None], number: int = 2) -> bool:
    """Whether the attack is counted by the host under the reason, in time."""
    before, deadline = counted(hosts, reason, number), time.monotonic() + DEADLINE_S
    send()
    while counted(hosts, reason, number) == before and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
    return counted(hosts, reason, number) == before + 1


def is_quiet(victim: socket.socket) -> bool:
    try:
        victim.recv(1)
    except BlockingIOError:
        return True
    return False


def identity_of(hosts: Hosts, workload: str) -> int:
    with hosts.host(int(workload[1:])) as host:
        return next(row["identity"] for row in host.listing().endpoints() if row["workload"] == f"default/{workload}")


def test_what_the_right_node_sends_arrives(hosts: Hosts, attack: Attack) -> None:
    """The attacks below differ from this in one thing each."""
    vni = identity_of(hosts, "a1")
    with listening(hosts.space("a2"), hosts.address("a2"), socket.SOCK_DGRAM) as found:
        attack.send("h1", "10.98.0.1", vni, hosts.address("a1"), hosts.address("a2"))
        assert found.recv(1) == b"x"


@pytest.mark.parametrize(
    ("space", "node", "source"),
    [
        pytest.param("wire", f"10.98.0.{STRANGER}", "a1", id="a stranger"),
        pytest.param("h3", "10.98.0.3", "a1", id="a node for another one"),
        pytest.param("h1", "10.98.0.1", "b2", id="a node for a workload of the host itself"),
    ],
)
def test_nobody_speaks_for_workloads_that_are_not_theirs(
    hosts: Hosts, attack: Attack, victim: socket.socket, space: str, node: str, source: str
) -> None:
    said = identity_of(hosts, source), hosts.address(source), hosts.address("a2")
    assert refused(hosts, Reason.TUNNEL_NODE, lambda: attack.send(space, node, *said))
    assert is_quiet(victim)


@pytest.mark.parametrize("destination", ["10.47.2.77", "10.98.0.2", "10.47.3.10", "127.0.0.1", "192.0.2.1"])
def test_what_is_for_nobody_here_goes_nowhere(hosts: Hosts, attack: Attack, destination: str) -> None:
    said = identity_of(hosts, "a1"), hosts.address("a1"), destination
    assert refused(hosts, Reason.TUNNEL_DESTINATION, lambda: attack.send("h1", "10.98.0.1", *said))


def test_a_workload_does_not_play_the_node_that_it_is_on(hosts: Hosts, attack: Attack, victim: socket.socket) -> None:
    """It would leave with that node's address, and could say that it is any workload there."""
    said = identity_of(hosts, "b1"), hosts.address("b1"), hosts.address("a2")
    own = hosts.address("a1")
    assert refused(hosts, Reason.TUNNEL_FORBIDDEN, lambda: attack.send("a1", own, *said), number=1)
    assert is_quiet(victim)


OF_ANOTHER_CLUSTER = (7 << 16) + FIRST_CLUSTER


@pytest.mark.parametrize(
    "vni", [0, Reserved.HOST, Reserved.WORLD, Reserved.WORLD_IPV4, FIRST_CLUSTER - 1, OF_ANOTHER_CLUSTER]
)
def test_no_other_node_has_an_identity_that_is_reserved_or_of_another_cluster(
    hosts: Hosts, attack: Attack, victim: socket.socket, vni: int
) -> None:
    said = vni, hosts.address("a1"), hosts.address("a2")
    assert refused(hosts, Reason.TUNNEL_IDENTITY, lambda: attack.send("h1", "10.98.0.1", *said))
    assert is_quiet(victim)


def test_without_a_tunnel_nobody_borrows_the_address_of_another_hosts_workload(
    hosts: Hosts, victim: socket.socket
) -> None:
    frame = packets.udp(hosts.address("a1"), 40000, hosts.address("a2"), PORT)
    mac = bytes.fromhex(hosts.mac("h2", "eth0").replace(":", ""))

    def send() -> None:
        with netns.inside(hosts.space("wire")), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("br0", 0))
            wire.send(mac + frame[6:])

    for path in ("all", "eth0"):
        hosts.set("h2", f"net/ipv4/conf/{path}/rp_filter", "0")
    assert refused(hosts, Reason.SPOOFED_SOURCE, send)
    assert is_quiet(victim)
