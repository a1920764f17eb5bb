"""What becomes of flows where something is used up: ports, and room for what is remembered of flows."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from reconciler.bpf import bpffs
from reconciler.kernel import netns
from reconciler.observe.flow import Reason

from .conftest import OPTIONS, WORKLOADS, made_device
from .gate import HOST, WORLD, ends
from .harness import REDIRECT, SHOT, UNSPEC, Allow, Harness, Ran, loaded_at
from .mutations import dropped
from .packets import ACK, SYN, tcp
from .road import made_road
from .shop import ELSEWHERE, Shop, at, made_shop

FIRST_PORT, LAST_PORT = 50000, 50003
PORTS = LAST_PORT - FIRST_PORT + 1
ENTRIES, FLOWS = 64, 400
SIZES = dict.fromkeys(("translations", "service_flows4", "service_flows6"), ENTRIES)
VIP = {4: "10.96.0.1", 6: "fd96::1"}
families = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def small() -> Iterator[Harness]:
    """A datapath with few ports and little room."""
    path, root = f"/run/netns/pt-de{os.getpid()}", bpffs.MOUNT_POINT / f"pt-{os.getpid()}-small"
    options = {**OPTIONS, "masquerade_first_port": FIRST_PORT, "masquerade_last_port": LAST_PORT}
    netns.create(path)
    try:
        with netns.inside(path):
            devices = tuple(made_device(number) for number in range(1, WORKLOADS + 1))
            with loaded_at(root, devices, options, SIZES) as harness:
                yield harness
    finally:
        netns.remove(path)


@pytest.fixture(params=[True, False], ids=["forwarded", "by_the_stack"])
def shop(small: Harness, request: pytest.FixtureRequest) -> Iterator[Shop]:
    namespace = f"/run/netns/pt-de{os.getpid()}"
    with netns.inside(namespace):
        small.reset()
        with made_road(small, namespace) if request.param else made_shop(small) as made:
            yield made
        small.generation.finish()


def begins(shop: Shop, version: int, port: int, flags: int = SYN) -> Ran:
    """What becomes of a client's packet on its way to a backend elsewhere."""
    came = shop.arrives(tcp(WORLD[version], port, HOST[version], 30080, flags))
    return shop.leaves(came.packet) if came.action in (UNSPEC, REDIRECT) else came


def expire(shop: Shop) -> None:
    translations = shop.datapath.maps.open("translations")
    keys, values = translations.read()
    values["expires"] = 0
    translations.update(keys, values)


@families
def test_a_client_for_whom_no_port_is_left_is_dropped_and_counted(shop: Shop, version: int) -> None:
    shop.open(version, ELSEWHERE[version])
    before = dropped(shop.datapath)[Reason.NO_PORT]
    assert [begins(shop, version, 5000 + one).action for one in range(PORTS)] == [UNSPEC] * PORTS
    assert begins(shop, version, 6000).action == SHOT
    assert dropped(shop.datapath)[Reason.NO_PORT] == before + 1
    assert shop.reasons() == [Reason.NO_PORT]


@families
def test_flows_that_have_a_port_go_on_while_others_get_none(shop: Shop, version: int) -> None:
    shop.open(version, ELSEWHERE[version])
    for one in range(PORTS + 1):
        begins(shop, version, 5000 + one)
    again = begins(shop, version, 5000, ACK)
    assert (again.action, ends(again.packet)[2:]) == (UNSPEC, (ELSEWHERE[version], 8080))


@families
def test_other_backends_have_ports_of_their_own(shop: Shop, version: int) -> None:
    shop.open(version, ELSEWHERE[version])
    for one in range(PORTS):
        begins(shop, version, 5000 + one)
    shop.open(version, {4: "10.9.0.8", 6: "fd00:9::8"}[version])
    assert begins(shop, version, 6000).action == UNSPEC


@families
def test_new_flows_begin_again_once_old_ones_have_expired(shop: Shop, version: int) -> None:
    shop.open(version, ELSEWHERE[version])
    for one in range(PORTS):
        begins(shop, version, 5000 + one)
    assert begins(shop, version, 6000).action == SHOT
    expire(shop)
    assert [begins(shop, version, 6000 + one).action for one in range(PORTS)] == [UNSPEC] * PORTS


@families
def test_a_client_is_never_refused_because_too_many_were_served(shop: Shop, version: int) -> None:
    shop.open(version, shop.address(version), shop.address(version, shop.datapath.devices[1]))
    sent = [tcp(WORLD[version], 5000 + one, HOST[version], 30080) for one in range(FLOWS)]
    ran = [shop.arrives(packet) for packet in sent]
    assert {one.action for one in ran} == {UNSPEC}
    assert len(shop.datapath.maps.open("translations").read()[0]) <= ENTRIES
    assert not shop.reasons()


@families
def test_a_flow_that_was_forgotten_finds_its_backend_by_its_hash(shop: Shop, version: int) -> None:
    shop.open(version, shop.address(version), shop.address(version, shop.datapath.devices[1]))
    first = {
        port: ends(shop.arrives(tcp(WORLD[version], port, HOST[version], 30080)).packet)[2]
        for port in range(5000, 5000 + FLOWS)
    }
    again = {port: ends(shop.arrives(tcp(WORLD[version], port, HOST[version], 30080, ACK)).packet)[2] for port in first}
    assert again == first
    assert len(set(first.values())) == 2


@families
def test_a_workload_is_never_refused_because_it_was_served_too_often(shop: Shop, version: int) -> None:
    client, *servers = shop.datapath.devices
    shop.datapath.become_usual([Allow(one.identity, egress=way) for one in shop.datapath.devices for way in (0, 1)])
    shop.services.serve(VIP[version], 80, [at(shop.address(version, one), 8080) for one in servers])
    program = shop.datapath.by_name["from_workload"]

    def asks(port: int, flags: int) -> str:
        packet = tcp(shop.address(version, client), port, VIP[version], 80, flags)
        ran = shop.datapath.try_on(program, packet, client.ifindex)
        assert ran.action == REDIRECT
        return ends(ran.packet)[2]

    first = {port: asks(port, SYN) for port in range(5000, 5000 + FLOWS)}
    assert len(shop.datapath.maps.open(f"service_flows{version}").read()[0]) <= ENTRIES
    assert {port: asks(port, ACK) for port in first} == first
