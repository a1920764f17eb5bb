"""BIRD on each host tells the other ones which workloads it has, and learns the way to theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from tests.e2e.across import pings, sniffed
from tests.e2e.daemon_host import until
from tests.e2e.hosts import Hosts, made_hosts

pytestmark = pytest.mark.root

# As docs/networking.md has it, with the addresses of this test.
CONFIGURATION = """
router id 10.98.0.{own};
protocol device {{ scan time 1; }}
protocol kernel {{ learn; ipv4 {{ import where krt_source = 112; export where source = RTS_BGP; }}; }}
protocol kernel {{ learn; ipv6 {{ import where krt_source = 112; export where source = RTS_BGP; }}; }}
template bgp node {{
    local as 64512;
    direct;
    ipv4 {{ import all; export where net = 10.47.{own}.0/24; next hop self; }};
    ipv6 {{ import all; export where net = fd47:{own}::/112; next hop address fd98::{own}; }};
}}
protocol bgp h{other} from node {{ neighbor 10.98.0.{other} as 64512; connect delay time 1; }}
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with made_hosts(tmp_path_factory.mktemp("hosts")) as found, bird(found, 1, 2), bird(found, 2, 1):
        for host, version in product(("h1", "h2"), ("-4", "-6")):
            until(partial(_has_learned, found, host, version), f"BIRD of {host} learns a route ({version})")
        yield found


def _has_learned(hosts: Hosts, host: str, version: str) -> bool:
    return "via" in hosts.ip(host, version, "route", "show", "proto", "bird")


@contextmanager
def bird(hosts: Hosts, own: int, other: int) -> Iterator[None]:
    """In the namespace of a host."""
    folder: Path = hosts.directory / f"h{own}"
    (folder / "bird.conf").write_text(CONFIGURATION.format(own=own, other=other))
    command = ["bird", "-f", "-c", folder / "bird.conf", "-s", folder / "bird.ctl"]
    with (folder / "bird.log").open("wb") as log:
        running = subprocess.Popen(["nsenter", f"--net={hosts.space(f'h{own}')}", *command], stdout=log, stderr=log)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


@pytest.mark.parametrize("version", [4, 6])
def test_packets_travel_over_learned_routes_as_they_are(hosts: Hosts, version: int) -> None:
    with sniffed(hosts.space("h2"), "eth0") as seen:
        assert pings(hosts.space("a1"), hosts.address("a2", version))
    travelled = hosts.address("a1", version), hosts.address("a2", version)
    assert travelled in {(packet.source, packet.destination) for packet in seen()}


def test_what_bird_learned_is_left_alone(hosts: Hosts) -> None:
    before = hosts.ip("h1", "route")
    hosts.converge()
    assert hosts.ip("h1", "route") == before
