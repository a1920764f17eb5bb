"""Flows in which a proxy has the last word, on a host that has none."""

from __future__ import annotations

from reconciler.model.datapath import PolicyFlag

from .harness import REDIRECT, SHOT, Allow, Harness
from .packets import TCP, tcp

NO_PROXY, INGRESS = 12, 2  # enum reason, enum side


def test_what_is_left_to_a_proxy_that_is_not_there_does_not_pass(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    proxied = Allow(server.identity, protocol=TCP, port=80, flags=PolicyFlag.REDIRECT, cookie=9)
    plain = Allow(server.identity, peer=client.identity, cookie=8)
    datapath.become_usual([Allow(client.identity, egress=True), proxied, plain])
    packet = tcp(str(client.address4), 1000, str(server.address4), 80)
    assert datapath.sent(packet, client).action == SHOT
    (event,) = datapath.events()
    assert (event["reason"], event["side"], event["cookie"]) == (NO_PROXY, INGRESS, 9)
    assert datapath.sent(tcp(str(client.address4), 1000, str(server.address4), 81), client).action == REDIRECT
