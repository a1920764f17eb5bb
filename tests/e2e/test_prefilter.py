"""Who is denied gets no answer, whatever runs at XDP; and 100,000 CIDRs are as good as one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.engine.change import ColumnDelta
from reconciler.errors import ApplyError
from reconciler.observe.flow import Reason
from tests.e2e.across import listening, opened, pings
from tests.e2e.daemon_host import NAMESPACE, cluster, document
from tests.e2e.hosts import STRANGER, Hosts, made_hosts

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
modes = pytest.mark.parametrize("mode", ["off", "generic", "native", "auto"])
RUNS = {"off": "", "generic": "xdpgeneric", "native": "xdp", "auto": "xdpgeneric"}  # what `ip` calls it, on veth
STRANGERS = {4: f"10.98.0.{STRANGER}", 6: f"fd98::{STRANGER}"}
AROUND = [f"{STRANGERS[4]}/32", str(ip_network(f"{STRANGERS[6]}/126", strict=False))]
PORT = 2222


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with made_hosts(tmp_path_factory.mktemp("prefilter"), 1) as made:
        yield made


@pytest.fixture(autouse=True)
def _as_before(hosts: Hosts) -> Iterator[None]:
    yield
    for path in hosts.tree.glob("prefilters/*.yaml"):
        path.unlink()
    become(hosts)


def become(hosts: Hosts, mode: str = "off", **denied: list[str]) -> None:
    """`denied`: name of a Prefilter -> its CIDRs."""
    hosts.write("cluster.yaml", cluster(xdp={"mode": mode}) + NAMESPACE)
    for name, cidrs in denied.items():
        hosts.write(f"prefilters/{name}.yaml", prefilter(name, cidrs))
    hosts.converge()


def prefilter(name: str, cidrs: list[str], **spec: Any) -> str:
    return document("Prefilter", name, {"deny": cidrs, **spec})


def runs(hosts: Hosts) -> str:
    """What runs at XDP of the host's device, as `ip` calls it."""
    words = hosts.ip("h1", "-details", "link", "show", "eth0").replace("/", " ").split()
    return next((word for word in words if word in ("xdp", "xdpgeneric")), "")


def is_answered(hosts: Hosts, version: int) -> tuple[bool, bool]:
    """Whether the stranger gets an answer of the host: to a ping, and to a connection."""
    address = hosts.underlay(1)[version == 6]
    return pings(hosts.space("wire"), address), _connects(hosts, address)


def _connects(hosts: Hosts, address: str) -> bool:
    with (
        listening(hosts.space("h1"), address, port=PORT),
        opened(hosts.space("wire"), address, socket.SOCK_STREAM) as client,
    ):
        client.settimeout(0.5)
        return client.connect_ex((address, PORT)) == 0


def counted(hosts: Hosts) -> int:
    with hosts.host(1) as host:
        found = host.counters()
    assert found is not None
    return found.by_reason[Reason.PREFILTERED].packets


@modes
@families
def test_who_is_denied_gets_no_answer_until_it_is_no_longer_denied(hosts: Hosts, mode: str, version: int) -> None:
    become(hosts, mode)
    assert is_answered(hosts, version) == (True, True)
    become(hosts, mode, bad=AROUND)
    before = counted(hosts)
    assert (runs(hosts), is_answered(hosts, version)) == (RUNS[mode], (False, False))
    assert counted(hosts) >= before + 2
    (hosts.tree / "prefilters/bad.yaml").unlink()
    become(hosts, mode)
    assert (runs(hosts), is_answered(hosts, version)) == ("", (True, True))


@families
def test_no_change_of_the_mode_lets_anybody_in(hosts: Hosts, version: int) -> None:
    """Packets are sent all the time; not one of them gets through while the modes change."""
    become(hosts, "off", bad=AROUND)
    address, before = hosts.underlay(1)[version == 6], counted(hosts)
    hosts.ip("wire", *f"neighbour replace {address} lladdr {hosts.mac('h1', 'eth0')} dev br0".split())
    with (
        listening(hosts.space("h1"), address, socket.SOCK_DGRAM, PORT) as server,
        opened(hosts.space("wire"), address, socket.SOCK_DGRAM) as client,
    ):
        server.setblocking(False)
        with _sending(client, address):
            for mode in ("native", "generic", "auto", "off", "native", "off"):
                become(hosts, mode, bad=AROUND)
        with pytest.raises(BlockingIOError):
            server.recv(16)
    assert counted(hosts) > before + 1000


@contextmanager
def _sending(client: socket.socket, address: str) -> Iterator[None]:
    """While the block runs, datagrams to the address, one after the other."""
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            with suppress(OSError):  # the neighbour is not known, or no longer
                client.sendto(b"in?", (address, PORT))

    sending = threading.Thread(target=send)
    sending.start()
    yield
    done.set()
    sending.join()


def test_a_lost_xdp_link_lets_nobody_in(hosts: Hosts) -> None:
    become(hosts, "native", bad=AROUND)
    with held(syscalls.get(str(hosts.config(1).pin_root / "links" / "eth0-xdp_native"))) as link:
        programs.detach(link)
    assert (runs(hosts), is_answered(hosts, 4)) == ("", (False, False))
    hosts.converge()
    assert runs(hosts) == "xdp"


def test_only_nodes_that_a_selector_picks_deny(hosts: Hosts) -> None:
    hosts.write("prefilters/edge.yaml", prefilter("edge", AROUND, nodeSelector={"matchLabels": {"role": "edge"}}))
    hosts.converge()
    assert is_answered(hosts, 4) == (True, True)


def test_a_device_that_takes_no_program_makes_native_fail_and_auto_generic(hosts: Hosts) -> None:
    """A bridge has no driver that could."""
    before = (hosts.tree / "nodes/h1.yaml").read_text()
    node = before.replace('"spec": {', '"spec": {"devices": ["br1"], ')
    hosts.ip("h1", "link", "add", "br1", "type", "bridge")
    hosts.write("nodes/h1.yaml", node)
    try:
        become(hosts, "auto", bad=AROUND)
        assert "xdpgeneric" in hosts.ip("h1", "-details", "link", "show", "br1")
        with pytest.raises(ApplyError, match=r"br1 takes no native XDP program: .* does not support XDP") as refused:
            become(hosts, "native", bad=AROUND)
        assert "auto or generic" in refused.value.remedy
        assert "xdpgeneric" in hosts.ip("h1", "-details", "link", "show", "br1")
    finally:
        hosts.write("nodes/h1.yaml", before)
        become(hosts, "auto", bad=AROUND)
        hosts.ip("h1", "link", "del", "br1")


def test_a_hundred_thousand_cidrs_converge_and_one_more_is_one_row(hosts: Hosts) -> None:
    parts = {f"part{number}": _addresses(number << 16, 40_000) for number in range(3)}
    become(hosts, "native", **parts, six=[f"2001:db8:{number:x}::/48" for number in range(20_000)], bad=AROUND)
    assert is_answered(hosts, 4) == (False, False)
    with hosts.host(1) as host:
        assert host.row_counts()["prefilter"] == 140_002
    hosts.write("prefilters/more.yaml", prefilter("more", ["198.51.100.0/24"]))
    with hosts.host(1) as host:
        plan = host.plan(hosts.commit())
    (delta,) = plan.deltas
    assert isinstance(delta, ColumnDelta)
    assert str(delta.counts) == "+1 ~0 -0"


def _addresses(first: int, count: int) -> list[str]:
    return [f"100.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(first, first + count)]
