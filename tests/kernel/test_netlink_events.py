"""Events out of the real kernel: what they name as dirty, and who wrote."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from reconciler.kernel import netns
from reconciler.kernel.netlink import Netlink, own_ports
from reconciler.kernel.netlink_events import DIRTIES, EVERYTHING, NetlinkEvent, NetlinkEvents
from reconciler.kernel.netlink_writers import process_of
from reconciler.kernel.routes import RoutesTable
from reconciler.model.network import Route, RouteKey

from .hands import DEADLINE_S, ip, ip_in


@pytest.fixture
def events(veth: str) -> Iterator[NetlinkEvents]:
    listening = NetlinkEvents()
    yield listening
    listening.close()


def told(events: NetlinkEvents, summary: str) -> NetlinkEvent:
    """The next event that says so; the kernel may tell others before."""
    seen: list[str] = []
    while select.select([events], [], [], DEADLINE_S)[0]:
        for event in events.read():
            if event.summary.startswith(summary):
                return event
            seen.append(event.summary)
    raise AssertionError(f"{summary!r} was not told within {DEADLINE_S} s, but {seen}")


@pytest.mark.parametrize(
    ("command", "kind", "summary"),
    [
        ("route add 10.1.0.0/24 dev veth0 proto 112", "routes", "route 10.1.0.0/24 added"),
        ("-6 route add fd01::/64 dev veth0 proto 112", "routes", "route fd01::/64 added"),
        ("route add local 10.1.0.0/24 dev lo", "routes", "route 10.1.0.0/24 added"),
        ("rule add priority 100 lookup 7", "rules", "IPv4 rule 100 added"),
        ("-6 rule add priority 100 lookup 7", "rules", "IPv6 rule 100 added"),
        ("address add 10.1.0.1/32 dev veth0", "addresses", "address 10.1.0.1/32 on veth0 added"),
        ("address add fd01::1/64 dev veth0 nodad", "addresses", "address fd01::1/64 on veth0 added"),
        ("link set veth0 mtu 1400", "links", "link veth0 changed"),
        ("link del veth0", "links", "link veth0 deleted"),
        (
            "neigh add 10.1.0.9 dev veth0 lladdr 02:00:00:00:00:01 nud permanent proto 112",
            "neighbours",
            "neighbour 10.1.0.9 on veth0 changed",
        ),
    ],
)
def test_a_change_names_its_table(events: NetlinkEvents, command: str, kind: str, summary: str) -> None:
    ip(command)
    assert told(events, summary).kind == kind


def test_a_deleted_route_names_the_process_that_deleted_it(events: NetlinkEvents) -> None:
    ip("route add 10.1.0.0/24 dev veth0 proto 112")
    told(events, "route 10.1.0.0/24 added")
    with subprocess.Popen(["ip", "route", "del", "10.1.0.0/24"]) as deleting:
        deleting.wait()
    assert told(events, "route 10.1.0.0/24 deleted").pid == deleting.pid


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("route {} 10.1.0.0/24 dev veth0 table 77 metric 5 proto 112", RouteKey("", ip_network("10.1.0.0/24"), 77, 5)),
        ("-6 route {} fd01::/64 dev veth0 proto 112", RouteKey("", ip_network("fd01::/64"), 254, 0)),
    ],
)
def test_a_deleted_route_of_ours_is_named(events: NetlinkEvents, command: str, key: RouteKey) -> None:
    ip(command.format("add"))
    assert told(events, f"route {key.destination} added").gone is None
    ip(command.format("del"))
    assert told(events, f"route {key.destination} deleted").gone == key


def test_a_foreign_route_that_replaces_ours_is_told(events: NetlinkEvents) -> None:
    ip("route add 10.1.0.0/24 dev veth0 proto 112")
    ip("route replace 10.1.0.0/24 dev veth1 proto static")
    assert told(events, "route 10.1.0.0/24 replaced").kind == "routes"


def test_what_cannot_concern_our_rows_is_not_told(events: NetlinkEvents) -> None:
    ip("route add 10.1.0.0/24 dev veth0 proto bird")
    ip("neigh add 10.1.0.9 dev veth0 lladdr 02:00:00:00:00:01 nud permanent")
    ip("rule add priority 9 lookup 9")
    seen = [event.summary for event in events.read()]
    assert "IPv4 rule 9 added" in seen
    assert not [summary for summary in seen if "10.1.0." in summary]


def test_forwarding_is_told_as_a_sysctl(events: NetlinkEvents) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if before == "0" else "0")
    assert told(events, "network configuration of all changed").kind == "sysctls"


def test_our_own_writes_carry_a_port_id_of_ours(events: NetlinkEvents) -> None:
    key = RouteKey("", ip_network("10.1.0.0/24"), 254, 0)
    RoutesTable().write({key: Route("veth0")}, ())
    assert told(events, "route 10.1.0.0/24 added").port_id in own_ports()


def test_lost_events_dirty_everything(veth: str) -> None:
    events = NetlinkEvents(room_bytes=1)  # the kernel makes it the least there is
    batch = "".join(f"route add 10.1.{number}.0/24 dev {veth} proto 112\n" for number in range(200))
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    assert told(events, "events were lost").kind == EVERYTHING
    assert "routes" in DIRTIES[EVERYTHING]
    events.close()


def test_reading_without_news_is_empty_and_does_not_block(host: str) -> None:
    events = NetlinkEvents()
    assert events.read() == []
    events.close()


def test_events_of_a_workload_are_heard_from_outside(workload: str) -> None:
    events = NetlinkEvents(workload)
    ip_in(workload, "rule add priority 9 lookup 9")
    assert told(events, "IPv4 rule 9 added").kind == "rules"
    events.close()


def test_a_subscription_is_stale_when_its_namespace_was_made_again(workload: str) -> None:
    events = NetlinkEvents(workload)
    assert not events.stale
    netns.remove(workload)
    assert events.stale
    netns.create(workload)
    assert events.stale
    events.close()


def test_the_process_of_an_open_socket_is_found_whatever_its_port_id(host: str) -> None:
    with Netlink() as opened, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as arbitrary:
        arbitrary.bind((0xFFFF0000, 0))
        for port_id in (opened.port_id, 0xFFFF0000):
            found = process_of(port_id)
            assert found is not None
            assert (found.pid, found.uid) == (os.getpid(), 0)
            assert found.command.split()[0] == Path("/proc/self/cmdline").read_text().split("\0")[0]


def test_a_port_id_of_nobody_has_no_process(host: str) -> None:
    assert process_of(0) is None
    assert process_of(0xFFFFFFF0) is None
