"""Routes as a table, in the real kernel."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.netns import NamespaceMissing
from reconciler.kernel.routes import RoutesTable
from reconciler.model.network import Route, RouteKey

from .hands import NETNS, PREFIX, ip, ip_in

NET4, NET6 = ip_network("10.1.0.0/24"), ip_network("fd01::/64")
KEY4, KEY6 = RouteKey("", NET4, 254, 0), RouteKey("", NET6, 254, 0)
ROUTE = Route("veth0")


@pytest.fixture
def routes(workload: str) -> RoutesTable:
    return RoutesTable(lambda: [workload])


@pytest.fixture
def made(routes: RoutesTable, veth: str) -> RoutesTable:
    routes.write({KEY4: ROUTE, KEY6: ROUTE}, ())
    return routes


@pytest.mark.parametrize(
    ("destination", "table", "priority", "route"),
    [
        ("10.1.0.1/32", 254, 0, ROUTE),
        ("10.1.0.0/24", 254, 50, replace(ROUTE, mtu_bytes=1400)),
        ("10.1.0.0/24", 1000, 0, ROUTE),
        ("0.0.0.0/0", 254, 0, Route("veth0", gateway=ip_address("10.8.0.1"), onlink=True)),
        ("10.1.0.0/24", 254, 0, Route("veth0", gateway=ip_address("fe80::1"), onlink=True)),
        ("10.1.0.0/24", 254, 0, Route("veth0", source=ip_address("10.8.0.9"))),
        ("0.0.0.0/0", 100, 0, Route("lo", kind="local")),
        ("10.1.0.0/24", 254, 0, Route("", kind="blackhole")),
        ("10.1.0.0/24", 254, 0, Route("", kind="unreachable")),
        ("10.1.0.0/24", 254, 0, Route("", kind="prohibit")),
        ("fd01::1/128", 254, 0, ROUTE),
        ("fd01::/64", 254, 50, replace(ROUTE, mtu_bytes=1400)),
        ("fd01::/64", 1000, 1024, ROUTE),
        ("::/0", 254, 0, Route("veth0", gateway=ip_address("fe80::1"))),
        ("::/0", 254, 0, Route("veth0", gateway=ip_address("fd08::1"), onlink=True)),
        ("fd01::/64", 254, 0, Route("veth0", source=ip_address("fd08::9"))),
        ("::/0", 100, 0, Route("lo", kind="local")),
        ("fd01::/64", 254, 0, Route("", kind="blackhole")),
        ("fd01::/64", 254, 0, Route("", kind="unreachable")),
        ("fd01::/64", 254, 0, Route("", kind="prohibit")),
    ],
)
def test_a_written_route_reads_as_it_was_written_is_idempotent_and_goes(
    routes: RoutesTable, veth: str, destination: str, table: int, priority: int, route: Route
) -> None:
    ip(f"address add 10.8.0.9/32 dev {veth}")
    ip(f"address add fd08::9/128 dev {veth} nodad")
    key = RouteKey("", ip_network(destination), table, priority)
    routes.write({key: route}, ())
    routes.write({key: route}, ())
    assert routes.live().rows == routes.live([key]).rows == {key: route}
    routes.write({}, [key])
    routes.write({}, [key])
    assert routes.live().rows == {}


def test_a_gateway_is_written_after_the_route_to_it(routes: RoutesTable, workload: str) -> None:
    ip_in(workload, "link add eth0 type veth peer name other")
    ip_in(workload, "link set eth0 up")
    ip_in(workload, "link set other up")
    gateway = ip_address("169.254.1.1")
    rows = {
        RouteKey(workload, ip_network("0.0.0.0/0"), 254, 0): Route("eth0", gateway=gateway),
        RouteKey(workload, ip_network("169.254.1.1/32"), 254, 0): Route("eth0"),
        RouteKey(workload, ip_network("::/0"), 254, 0): Route("eth0", gateway=ip_address("fe80::1"), onlink=True),
    }
    routes.write(rows, ())
    assert routes.live().rows == rows


@pytest.mark.parametrize(
    "tamper",
    [
        "route replace 10.1.0.0/24 dev veth1 proto 112",
        "route replace 10.1.0.0/24 via 10.8.0.1 dev veth0 onlink proto 112",
        "route replace 10.1.0.0/24 dev veth0 mtu 1300 proto 112",
        "route replace blackhole 10.1.0.0/24 proto 112",
        "route replace throw 10.1.0.0/24 proto 112",
        "route replace 10.1.0.0/24 proto 112 nexthop dev veth0 nexthop dev veth1",
        "route append 10.1.0.0/24 dev veth1 proto 112",
        "route del 10.1.0.0/24 dev veth0",
        "-6 route replace fd01::/64 dev veth1 proto 112",
        "-6 route replace fd01::/64 dev veth0 mtu 1300 proto 112",
        "-6 route append fd01::/64 dev veth1 proto 112",
        "-6 route del fd01::/64 dev veth0",
    ],
)
def test_a_tampered_route_differs_and_is_repaired(made: RoutesTable, tamper: str) -> None:
    ip(tamper)
    assert made.live().rows != {KEY4: ROUTE, KEY6: ROUTE}
    made.write({KEY4: ROUTE, KEY6: ROUTE}, ())
    assert made.live().rows == {KEY4: ROUTE, KEY6: ROUTE}


def test_a_changed_route_is_replaced_without_a_gap(made: RoutesTable) -> None:
    wanted = {KEY4: Route("veth1"), KEY6: Route("veth1")}
    made.write(wanted, ())
    assert made.live().rows == wanted


def test_several_routes_under_one_key_are_all_deleted(made: RoutesTable) -> None:
    ip("route append 10.1.0.0/24 dev veth1 proto 112")
    ip("-6 route append fd01::/64 dev veth1 proto 112")
    made.write({}, [KEY4, KEY6])
    assert ip("route show proto 112") + ip("-6 route show proto 112") == ""


def test_deleting_a_route_spares_those_of_other_metrics(made: RoutesTable) -> None:
    other = RouteKey("", NET4, 254, 100)
    made.write({other: ROUTE}, [KEY4])
    made.write({}, [KEY4])  # the kernel reads metric 0 in a deletion as any
    assert made.live().rows == {other: ROUTE, KEY6: ROUTE}


@pytest.mark.parametrize(("key", "family"), [(KEY4, "-4"), (KEY6, "-6")])
def test_a_foreign_route_is_never_shown_overwritten_or_deleted(
    routes: RoutesTable, veth: str, key: RouteKey, family: str
) -> None:
    ip(f"{family} route add {key.destination} dev {veth} proto static")
    before = ip(f"{family} route show {key.destination}")
    assert routes.live().rows == {}
    with pytest.raises(KernelError, match="is there and is not ours: protocol 4, dev veth0"):
        routes.write({key: Route("veth1")}, ())
    routes.write({}, [key])
    assert ip(f"{family} route show {key.destination}") == before


def test_a_foreign_route_of_another_metric_lives_beside_ours(made: RoutesTable) -> None:
    ip("route add 10.1.0.0/24 dev veth1 metric 7")
    made.write({}, [KEY4])
    assert "metric 7" in ip("route show 10.1.0.0/24")


def test_a_missing_link_is_an_error_on_write_and_success_on_delete(routes: RoutesTable, host: str) -> None:
    with pytest.raises(KernelError, match=r"cannot write route 10\.1\.0\.0/24 .*: no link ptnone"):
        routes.write({KEY4: Route("ptnone")}, ())
    routes.write({}, [KEY4])


def test_an_unreachable_gateway_is_the_kernels_own_sentence(routes: RoutesTable, veth: str) -> None:
    with pytest.raises(KernelError, match="Nexthop has invalid gateway"):
        routes.write({KEY4: Route("veth0", gateway=ip_address("10.9.9.9"))}, ())


def test_a_row_that_no_route_can_be_is_refused(routes: RoutesTable, veth: str) -> None:
    with pytest.raises(KernelError, match="of kind other cannot be written"):
        routes.write({KEY4: Route("", kind="other")}, ())


def test_a_missing_namespace_is_an_error_on_write_only(host: str) -> None:
    path = str(NETNS / f"{PREFIX}missing")
    routes = RoutesTable(lambda: [path])
    key = RouteKey(path, NET4, 254, 0)
    with pytest.raises(NamespaceMissing, match=path):
        routes.write({key: ROUTE}, ())
    routes.write({}, [key])
    assert routes.live().rows == routes.live([key]).rows == {}


def test_the_hosts_own_namespace_is_not_a_workloads_by_whatever_path(routes: RoutesTable, made: RoutesTable) -> None:
    itself = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    with pytest.raises(KernelError, match="is the host's own network namespace"):
        routes.write({replace(KEY4, netns=itself, priority=7): ROUTE}, ())
    assert RoutesTable(lambda: [itself]).live().rows == made.live().rows


def test_a_link_that_was_renamed_shows_in_its_routes(made: RoutesTable) -> None:
    ip("link set veth0 down")
    ip("link set veth0 name veth9")
    ip("link set veth9 up")
    ip("-4 route add 10.2.0.0/24 dev veth9 proto 112")
    assert made.live().rows[RouteKey("", ip_network("10.2.0.0/24"), 254, 0)].ifname == "veth9"
