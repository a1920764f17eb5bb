"""New flows of a service pass by a workload to which no packet is handed over, as around the commit that moves it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from .gate import HOST, WORLD
from .harness import Device, Harness
from .packets import tcp
from .services import RANDOM, Services
from .shop import ELSEWHERE, at, made_shop
from .test_translation import Shop, ends

families = pytest.mark.parametrize("version", [4, 6])
LOCAL = 2  # BACKEND_LOCAL
PORTS = range(2000, 2040)


@pytest.fixture
def shop(datapath: Harness, version: int) -> Iterator[Shop]:
    services = Services(datapath.maps)
    services.clear()
    yield Shop(datapath, services, version)
    services.clear()


def serve(shop: Shop, *devices: Device, **more: int) -> None:
    shop.serve(*devices, **more)
    for one in devices:
        shop.services.know(shop.backend(one), flags=LOCAL)


def close(shop: Shop, device: Device) -> None:
    """What the engine does first when a workload goes, and has not done yet when one comes."""
    shop.datapath.endpoints.write({}, [ip_address(shop.address(device))])


def reached(shop: Shop) -> set[str]:
    """Addresses that new flows are for."""
    return {ends(shop.asks(sport)[1])[2] for sport in PORTS}


@families
@pytest.mark.parametrize("algorithm", [0, RANDOM])
def test_while_a_backend_is_closed_new_flows_go_to_others(shop: Shop, algorithm: int) -> None:
    serve(shop, shop.server, shop.other, algorithm=algorithm)
    assert reached(shop) == {shop.address(shop.server), shop.address(shop.other)}
    close(shop, shop.server)
    serve(shop, shop.server, shop.other, algorithm=algorithm)
    assert reached(shop) == {shop.address(shop.other)}


@families
def test_a_client_does_not_keep_a_backend_that_is_closed(shop: Shop) -> None:
    serve(shop, shop.server, shop.other, affinity_s=1000)
    (kept,) = reached(shop)
    (device,) = (one for one in (shop.server, shop.other) if shop.address(one) == kept)
    close(shop, device)
    serve(shop, shop.server, shop.other, affinity_s=1000)
    assert len(reached(shop) - {kept}) == 1


@families
def test_an_address_of_the_host_is_never_closed(shop: Shop) -> None:
    name = f"{HOST[4]}:8080" if shop.version == 4 else f"[{HOST[6]}]:8080"
    shop.services.serve(shop.vip, 80, [name, shop.backend(shop.server)])
    shop.services.know(name, flags=LOCAL)
    assert reached(shop) == {HOST[shop.version], shop.address(shop.server)}


@families
def test_a_flow_is_for_a_closed_backend_where_there_is_no_other(shop: Shop) -> None:
    serve(shop, shop.server)
    close(shop, shop.server)
    assert reached(shop) == {shop.address(shop.server)}


@families
def test_a_connection_that_begins_again_leaves_a_closed_backend(shop: Shop) -> None:
    serve(shop, shop.server, shop.other)
    assert reached(shop) == {shop.address(shop.server), shop.address(shop.other)}
    close(shop, shop.server)
    assert reached(shop) == {shop.address(shop.other)}


@families
def test_clients_outside_reach_others_too(datapath: Harness, version: int) -> None:
    with made_shop(datapath) as gate:
        here, away = gate.address(version), ELSEWHERE[version]
        gate.open(version, here, away)
        gate.services.know(at(here, 8080), flags=LOCAL)

        def reached() -> set[str]:
            asked = (tcp(WORLD[version], sport, HOST[version], 30080) for sport in PORTS)
            return {ends(gate.arrives(one)[1])[2] for one in asked}

        assert reached() == {here, away}
        datapath.endpoints.write({}, [ip_address(here)])
        assert reached() == {away}
