"""The collectors: what has expired goes, what lives is counted, map by map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from reconciler.bpf.pins import program_path
from reconciler.bpf.syscalls import get, held
from reconciler.observe import fullness

from .gate import HOST, WORLD
from .harness import Allow, Harness
from .packets import tcp
from .services import Services
from .shop import ELSEWHERE, Shop, at, made_shop

VIP = {4: "10.96.0.1", 6: "fd96::1"}
families = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def shop(datapath: Harness) -> Iterator[Shop]:
    with made_shop(datapath) as made:
        yield made


def collected(datapath: Harness, name: str) -> Mapping[str, int]:
    path = program_path(datapath.root, name, datapath.datapath.program_rows()[name].digest)
    with held(get(str(path))) as program:
        return fullness.collect(name, program)


def expire(datapath: Harness, name: str, count: int) -> None:
    """So many entries of a map are over."""
    map_ = datapath.maps.open(name)
    keys, values = map_.read()
    values["expires"][:count] = 0
    map_.update(keys, values)


@families
def test_flows_that_live_are_counted_and_those_that_have_expired_go(shop: Shop, version: int) -> None:
    shop.datapath.become_usual([Allow(1), Allow(1, egress=True)])
    shop.open(version, ELSEWHERE[version])
    for port in (5000, 5001):
        shop.leaves(shop.arrives(tcp(WORLD[version], port, HOST[version], 30080)).packet)
    for port in (1000, 1001, 1002):
        shop.arrives(tcp(WORLD[version], port, HOST[version], 22))
    other = f"conntrack{10 - version}"
    found = collected(shop.datapath, "collect_conntrack")
    assert found == {f"conntrack{version}": 3, other: 0, "translations": 8}
    expire(shop.datapath, f"conntrack{version}", 1)
    expire(shop.datapath, "translations", 3)
    found = collected(shop.datapath, "collect_conntrack")
    assert found == {f"conntrack{version}": 2, other: 0, "translations": 5}
    assert len(shop.datapath.maps.open(f"conntrack{version}").read()[0]) == 2
    assert len(shop.datapath.maps.open("translations").read()[0]) == 5


@families
def test_flows_to_services_and_clients_that_keep_a_backend_too(datapath: Harness, version: int) -> None:
    client = datapath.devices[0]
    address = str(client.address4 if version == 4 else client.address6)
    datapath.become_usual([Allow(client.identity, egress=True)])
    services = Services(datapath.maps)
    services.clear()
    services.serve(VIP[version], 80, [at(ELSEWHERE[version], 8080)], affinity_s=1000)
    for port in (1000, 1001):
        datapath.sent(tcp(address, port, VIP[version], 80), client)
    name, other = f"service_flows{version}", f"service_flows{10 - version}"
    assert collected(datapath, "collect_services") == {name: 2, other: 0, "affinities": 1}
    expire(datapath, name, 1)
    expire(datapath, "affinities", 1)
    assert collected(datapath, "collect_services") == {name: 1, other: 0, "affinities": 0}
    services.clear()
