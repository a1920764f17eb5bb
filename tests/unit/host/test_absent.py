"""What a missing namespace takes along, and what it leaves."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from reconciler.engine.change import DictDelta
from reconciler.engine.plan import Plan
from reconciler.engine.rows import DictRows
from reconciler.host.absent import UNREACHABLE, Absent, AbsentWorkload, named, unexplained
from reconciler.model.datapath import AttachmentKey, AttachmentRow, EndpointRow, Hook
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.network import (
    Address,
    AddressKey,
    Carrier,
    Link,
    Neighbour,
    NeighbourKey,
    Route,
    RouteKey,
    Sysctl,
    SysctlKey,
    VethPeer,
)

MAC, MAIN = "02:00:00:00:00:01", 254


def _waiting(name: str) -> AbsentWorkload:
    return AbsentWorkload(f"default/{name}", f"/run/netns/{name}", f"workloads/{name}.yaml", 2)


def _facts(*names: str) -> Facts:
    endpoints = {
        f"default/{name}": Endpoint(f"default/{name}", "alpha", 256, f"pl{name}", _address(name), None, MAC)
        for name in names
    }
    return Facts("alpha", {}, endpoints, frozenset())


def _address(name: str) -> Any:
    return ip_address(f"10.0.0.{len(name)}")


def _rows(name: str) -> dict[str, dict[Any, Any]]:
    netns, device, address = f"/run/netns/{name}", f"pl{name}", _address(name)
    return {
        "links": {device: Link(MAC, 1500, VethPeer(netns, "eth0", MAC))},
        "carriers": {device: Carrier()},
        "sysctls": {
            SysctlKey("", f"net/ipv4/conf/{device}/forwarding"): Sysctl("1"),
            SysctlKey(netns, "net/ipv6/conf/eth0/accept_ra"): Sysctl("0"),
        },
        "addresses": {AddressKey(netns, "eth0", ip_interface(address)): Address()},
        "neighbours": {NeighbourKey("", device, address): Neighbour(MAC)},
        "endpoints": {address: EndpointRow(device, MAC)},
        "attachments": {AttachmentKey(device, Hook.INGRESS): AttachmentRow("from_workload", "abc")},
        "routes": {
            RouteKey(netns, ip_network("0.0.0.0/0"), MAIN, 0): Route("eth0"),
            RouteKey("", ip_network(address), MAIN, 0): Route(device),
        },
    }


ABSENT = Absent.of([_waiting("web")], _facts("web", "client"))


@pytest.mark.parametrize("table", sorted(set(_rows("web")) - {"routes"}))
def test_only_the_absent_ones_rows_are_left_out(table: str) -> None:
    both = {**_rows("web")[table], **_rows("client")[table]}
    assert ABSENT.without({table: DictRows(both)}) == {table: DictRows(_rows("client")[table])}


def test_routes_to_the_absent_one_become_unreachable() -> None:
    both = {**_rows("web")["routes"], **_rows("client")["routes"]}
    left = ABSENT.without({"routes": DictRows(both)})["routes"]
    to_web = RouteKey("", ip_network(_address("web")), MAIN, 0)
    assert left == DictRows({**_rows("client")["routes"], to_web: UNREACHABLE})


def test_nothing_is_touched_while_every_namespace_is_there() -> None:
    tables = {name: DictRows(rows) for name, rows in _rows("web").items()}
    assert Absent().without(tables) is tables


def test_what_a_namespace_took_along_is_nobodys_deed() -> None:
    gone = DictDelta("endpoints", {_address("web"): EndpointRow("#7", MAC)}, {})
    drift = DictDelta("neighbours", {}, {**_rows("web")["neighbours"], **_rows("client")["neighbours"]})
    left = unexplained(Plan("c", "c", (gone, drift)), ABSENT)
    assert left.deltas == (DictDelta("neighbours", {}, _rows("client")["neighbours"]),)


def test_people_read_of_the_first_few() -> None:
    lines = named(_waiting(f"w{number}") for number in range(7))
    assert lines[0] == (
        "workloads/w0.yaml:2: workload default/w0: network namespace /run/netns/w0 is missing;"
        " its link and rows wait for it"
    )
    assert lines[-1] == "2 more wait for theirs; plumb status -o json names all"
    assert len(lines) == 6
