"""Who is who on every way between workloads, hosts and the outside: what the verdicts say, on both ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from reconciler.bpf.ringbuf import RingBuffer
from reconciler.model.identity import Reserved
from reconciler.observe.events import Decoder, shipped_layout
from reconciler.observe.flow import EventType, FlowEvent
from tests.e2e.across import pings
from tests.e2e.hosts import STRANGER, Hosts, made_hosts

pytestmark = pytest.mark.root
MODES = {"native": {"directRoutes": True}, "vxlan": {"mode": "vxlan"}}
EVERYTHING = 3
# Rules that allow everything, so that the hosts' own sides are judged and told too.
OPEN = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumClusterwideNetworkPolicy",
    "metadata": {"name": "open"},
    "spec": {"nodeSelector": {}, "ingress": [{"fromEntities": ["all"]}], "egress": [{"toEntities": ["all"]}]},
}
CLOSED = {direction: [{"toPorts": [{"ports": [{"port": "22"}]}]}] for direction in ("ingress", "egress")}
# Sender, receiver, the host that watches, and the names of both ends there. `world` is of the packet's family.
PATHS = [
    ("a1", "b1", 1, "a", "b"),
    ("a1", "b2", 1, "a", "b"),
    ("a1", "b2", 2, "a", "b"),
    ("h1", "a2", 2, "remote-node", "a"),
    ("h2", "a2", 2, "host", "a"),
    ("a2", "h2", 2, "a", "host"),
    ("a1", "h2", 1, "a", "remote-node"),
    ("a1", "h2", 2, "remote-node", "host"),
    ("h1", "h2", 1, "host", "remote-node"),
    ("h1", "h2", 2, "remote-node", "host"),
    ("a1", "wire", 1, "a", "world"),
    ("h1", "wire", 1, "host", "world"),
    ("wire", "h2", 2, "world", "host"),
    ("wire", "a2", 2, "world", "a"),
]


@pytest.fixture(scope="module", params=MODES)
def hosts(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Two masqueraded hosts and a stranger, who knows the way to the second one's workloads."""
    settings = {"network": MODES[request.param], "masquerade": {"enabled": True}}
    with made_hosts(tmp_path_factory.mktemp("hosts"), **settings) as found:
        for cidr, via in zip(("10.47.2.0/24", "fd47:2::/112"), found.underlay(2), strict=True):
            found.ip("wire", "route", "add", cidr, "via", via)
        found.write("policies/open.yaml", json.dumps(OPEN))
        found.converge()
        yield found


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("sender", "receiver", "watching", "source", "destination"), PATHS)
def test_both_ends_are_who_they_are(
    hosts: Hosts, sender: str, receiver: str, watching: int, source: str, destination: str, version: int
) -> None:
    address = _address(hosts, receiver, version)
    with hosts.host(watching) as host:
        numbers = {one["workloads"][0][8]: one["identity"] for one in host.listing().identities() if one["workloads"]}
        numbers |= {"host": Reserved.HOST, "remote-node": Reserved.REMOTE_NODE}
        numbers["world"] = Reserved.WORLD_IPV4 if version == 4 else Reserved.WORLD_IPV6
        records: list[bytes] = []
        ring = RingBuffer(host.events(), records.append)
        host.listen_for(EVERYTHING)
        assert pings(hosts.space(sender), address)
        ring.consume()
        host.listen_for(0)
        ring.close()
        told = [event for event in Decoder(shipped_layout()).decode(records) if _is_echo(event, address)]
    assert {(one.source_identity, one.destination_identity) for one in told} == {
        (numbers[source], numbers[destination])
    }
    assert {one.type for one in told} == {EventType.VERDICT}


@pytest.mark.parametrize("version", [4, 6])
def test_workloads_of_two_hosts_talk_though_their_hosts_are_closed(hosts: Hosts, version: int) -> None:
    hosts.write("policies/open.yaml", json.dumps({**OPEN, "spec": {"nodeSelector": {}, **CLOSED}}))
    hosts.converge()
    assert not pings(hosts.space("h1"), _address(hosts, "h2", version))
    assert pings(hosts.space("a1"), hosts.address("a2", version))


def _address(hosts: Hosts, name: str, version: int) -> str:
    if name[0] in "ab":
        return hosts.address(name, version)
    return hosts.underlay(STRANGER if name == "wire" else int(name[1:]))[version == 6]


def _is_echo(event: FlowEvent, receiver: str) -> bool:
    return event.destination == ip_address(receiver) and event.icmp_type in (8, 128)
