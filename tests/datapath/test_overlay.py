"""Flows with workloads of other nodes, where their nodes tell who they are."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from reconciler.bpf import bpffs
from reconciler.kernel import netns
from reconciler.model.datapath import EndpointRow, IpcacheFlag, TunnelRow
from reconciler.model.identity import Reserved
from reconciler.observe.flow import Reason

from .conftest import OPTIONS
from .harness import REDIRECT, SHOT, UNSPEC, Allow, Device, Harness, Ran, loaded_at
from .packets import ACK, tcp

HERE, REMOTE = "10.1.0.1", "10.2.0.7"
CIDR = IPv4Network("10.2.0.0/24")
TUNNEL = TunnelRow("overlay", IPv4Address("192.0.2.2"), IPv4Address("192.0.2.1"))
OWN, KNOWN, TOLD = 301, 302, 303
REFINED = (3 << 23) + 5


@pytest.fixture(scope="module")
def loaded() -> Iterator[Harness]:
    """A workload's device, and one that stands for the overlay's."""
    path, root = f"/run/netns/pt-do{os.getpid()}", bpffs.MOUNT_POINT / f"pt-{os.getpid()}-overlay"
    netns.create(path)
    try:
        with netns.inside(path):
            for name in ("lxc1", "overlay"):
                subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True)
            index, mac = socket.if_nametoindex("lxc1"), "02:00:00:00:00:01"
            device = Device("lxc1", index, mac, IPv4Address(HERE), IPv6Address("fd00:1::1"), OWN)
        with loaded_at(root, (device,), {**OPTIONS, "overlay": True}) as harness:
            yield harness
    finally:
        netns.remove(path)


@pytest.fixture
def datapath(loaded: Harness) -> Iterator[Harness]:
    with netns.inside(f"/run/netns/pt-do{os.getpid()}"):
        loaded.reset()
        yield loaded
        loaded.generation.finish()


def become(datapath: Harness, *allowed: int, peer: int = KNOWN, own: int = OWN) -> None:
    """The peers that the workload may talk to, and what the address of the remote one is known for; 0: nothing."""
    rows = {IPv4Network("0.0.0.0/0"): (2, 0), CIDR: (Reserved.UNMANAGED, 0)}
    exact = {IPv4Address(REMOTE): (peer, 0)} if peer else {}
    datapath.become(
        endpoints={IPv4Address(HERE): EndpointRow("lxc1", datapath.devices[0].mac, OWN)},
        tunnels={CIDR: TUNNEL},
        ipcache={**rows, **exact, IPv4Address(HERE): (own, IpcacheFlag.LOCAL)},
        policy=[Allow(own, one, egress) for one in allowed for egress in (False, True)],
    )


def arrive(datapath: Harness, told: int = TOLD, *, reply: bool = False, device: str = "overlay") -> Ran:
    """A packet of the remote workload comes out of the tunnel; `told` is what its node says of it."""
    ports = (80, 1000) if reply else (1000, 80)
    packet = tcp(REMOTE, ports[0], HERE, ports[1], ACK)
    index = socket.if_nametoindex(device)
    return datapath.received(packet, datapath.devices[0], ingress_ifindex=index, mark=told)


def leave(datapath: Harness, *, reply: bool = False) -> Ran:
    ports = (80, 1000) if reply else (1000, 80)
    return datapath.sent(tcp(HERE, ports[0], REMOTE, ports[1], ACK), datapath.devices[0])


def test_what_the_node_tells_counts_for_more_than_what_is_known(datapath: Harness) -> None:
    become(datapath, TOLD)
    assert arrive(datapath).action == UNSPEC
    become(datapath, KNOWN)
    assert arrive(datapath).action == SHOT
    assert datapath.events()["source_identity"].tolist() == [TOLD, TOLD]


def test_an_identity_that_only_this_host_has_says_more_than_the_node(datapath: Harness) -> None:
    become(datapath, REFINED, peer=REFINED)
    assert arrive(datapath).action == UNSPEC


def test_a_sender_that_is_not_known_is_whom_its_node_tells(datapath: Harness) -> None:
    become(datapath, TOLD, peer=0)
    assert arrive(datapath).action == UNSPEC


def test_after_a_commit_the_answer_to_one_that_is_not_known_still_passes(datapath: Harness) -> None:
    become(datapath, TOLD, peer=0)
    assert arrive(datapath).action == UNSPEC
    become(datapath, TOLD, KNOWN, peer=0)
    assert leave(datapath, reply=True).action == REDIRECT
    assert datapath.events()["destination_identity"].tolist()[-1] == TOLD


def test_a_commit_that_forbids_cuts_the_answer_too(datapath: Harness) -> None:
    become(datapath, TOLD, peer=0)
    assert arrive(datapath).action == UNSPEC
    become(datapath, KNOWN, peer=0)
    assert leave(datapath, reply=True).action == SHOT


def test_without_the_mark_of_the_tunnel_nothing_is_believed(datapath: Harness) -> None:
    become(datapath, KNOWN, TOLD)
    assert arrive(datapath, told=0).action == SHOT
    assert datapath.events()["reason"].tolist() == [Reason.SPOOFED_SOURCE]


def test_by_another_device_nobody_joins_a_known_flow(datapath: Harness) -> None:
    become(datapath, TOLD)
    assert arrive(datapath).action == UNSPEC
    assert arrive(datapath, device="lxc1").action == SHOT
    assert datapath.events()["reason"].tolist()[-1] == Reason.SPOOFED_SOURCE


def test_each_packet_for_another_node_is_wrapped(datapath: Harness) -> None:
    become(datapath, KNOWN)
    assert [leave(datapath).action for _ in range(2)] == [REDIRECT, REDIRECT]
    assert arrive(datapath, KNOWN, reply=True).action == UNSPEC


def test_a_sender_with_an_identity_of_this_host_alone_can_send_too(datapath: Harness) -> None:
    become(datapath, KNOWN, own=REFINED)
    assert [leave(datapath).action for _ in range(2)] == [REDIRECT, REDIRECT]
