"""The shortest story: two workloads, a rule, a packet; and that no rule means no packet."""

from __future__ import annotations

import pytest

from reconciler.model.datapath import GATEWAY_MAC

from .harness import REDIRECT, SHOT, Allow, Harness
from .packets import tcp

POLICY_DEFAULT, NO_POLICY = 1, 3  # enum reason


@pytest.mark.parametrize("family", ["address4", "address6"])
def test_an_allowed_packet_is_delivered_to_the_other_workload(datapath: Harness, family: str) -> None:
    client, server, _ = datapath.devices
    rules = [
        Allow(client.identity, server.identity, egress=True, protocol=6, port=80, cookie=7),
        Allow(server.identity, client.identity, protocol=6, port=80, cookie=8),
    ]
    datapath.become_usual(rules)
    packet = tcp(str(getattr(client, family)), 1000, str(getattr(server, family)), 80)
    ran = datapath.sent(packet, client)
    assert ran.action == REDIRECT
    assert ran.packet[:6].hex(":") == server.mac
    assert ran.packet[6:12].hex(":") == GATEWAY_MAC
    assert datapath.events()["cookie"].tolist() == [8]


def test_a_packet_without_a_rule_is_dropped_with_its_event(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual()
    assert datapath.sent(tcp(str(client.address4), 1000, str(server.address4), 80), client).action == SHOT
    (event,) = datapath.events()
    assert event["reason"] == NO_POLICY
    assert event["ifindex"] == client.ifindex


def test_a_flow_is_cut_by_the_flip_that_takes_its_rule_away(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    both = [Allow(client.identity, egress=True), Allow(server.identity)]
    datapath.become_usual(both)
    packet = tcp(str(client.address4), 1000, str(server.address4), 80)
    assert datapath.sent(packet, client).action == REDIRECT
    datapath.become(policy=[Allow(client.identity, egress=True), Allow(server.identity, peer=9)])
    assert datapath.sent(packet, client).action == SHOT
    assert datapath.events()["reason"].tolist() == [0, POLICY_DEFAULT]
