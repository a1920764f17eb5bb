"""A workload without its network namespace waits for it, and nobody else does: commits, packets, repairs go on."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.kernel import netns
from tests.e2e.daemon_host import CHECKOUT, DaemonHost, allowing, document, made_host, policy, until
from tests.e2e.packet_flow import lossless, stopped

pytestmark = pytest.mark.root

PORT = 4000
ELSEWHERE = ("192.0.2.77", "2001:db8::77")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    """Audits do not help it. Whatever it has no other route for leaves by `out0`."""
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", "third", audit_interval_s=600) as made:
        _connect_to_elsewhere(made)
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
        made.wait_for(made.commit())
        yield made


@pytest.fixture
def host(shared: DaemonHost) -> Iterator[DaemonHost]:
    """Every namespace is there before and afterwards, and every row."""
    shared.settle()
    before, head = shared.rows(), shared.git("rev-parse", "HEAD")
    yield shared
    if netns.is_missing(shared.inside("third")):
        _make(shared, "third")
    shared.move(head)
    until(lambda: shared.rows() == before, "every row is back")


@pytest.fixture
def without_third(host: DaemonHost) -> DaemonHost:
    _remove(host, "third")
    return host


def test_a_commit_is_applied_though_a_workload_of_it_is_absent(host: DaemonHost) -> None:
    host.write("workloads/ghost.yaml", host.workload("ghost"))
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "third", PORT)]))
    outcome = host.outcome(host.commit())
    assert outcome["result"] == "applied"
    assert outcome["notes"] == [_note(host, "ghost")]
    assert outcome["text"].endswith(f"\n  {_note(host, 'ghost')}")
    with lossless(host, "third", "web", PORT), stopped(host, "client", "web", PORT + 1):
        pass


def test_an_absent_workload_is_told_of_wherever_one_looks(without_third: DaemonHost) -> None:
    host = without_third
    shown = host.plumb("status")
    assert shown.returncode == 0
    assert ["absent", *_note(host, "third").split()] in [line.split() for line in shown.stdout.splitlines()]
    (told,) = json.loads(host.plumb("status", "-o", "json").stdout)["absent"]
    assert (told["workload"], told["netns"]) == ("default/third", host.inside("third"))
    assert (told["path"], told["line"]) == ("workloads/third.yaml", 2)
    assert _note(host, "third") in host.plumb("plan").stdout
    assert json.loads(host.plumb("plan", "-o", "json").stdout)["absent"] == [told]


def test_what_was_left_for_later_stands_in_the_history(without_third: DaemonHost) -> None:
    applied = without_third.plumb("apply", without_third.commit())
    assert applied.returncode == 0
    assert _note(without_third, "third") in applied.stdout
    assert _note(without_third, "third") in without_third.plumb("history", "-n", "1").stdout


def test_packets_for_an_absent_workload_do_not_leave_the_host(without_third: DaemonHost) -> None:
    host = without_third
    _send(host, ELSEWHERE)
    until(lambda: _left(host) >= 2, "what is for elsewhere leaves")
    left = _left(host)
    _send(host, host.addresses("third"))
    _send(host, ELSEWHERE)
    until(lambda: _left(host) >= left + 2, "what was sent after it left")
    assert _left(host) == left + 2
    for address in host.addresses("third"):
        assert "unreachable" in "".join(host.ip("route", "show", "table", "all", address).split("\n")[:1])


def test_a_namespace_that_comes_is_connected_by_itself(host: DaemonHost) -> None:
    host.write("workloads/ghost.yaml", host.workload("ghost"))
    assert host.outcome(host.commit())["result"] == "applied"
    until(lambda: host.status()["state"] == "degraded", "the host says that it waits")
    _make(host, "ghost")
    host.settle()
    assert host.status()["absent"] == []
    with lossless(host, "client", "ghost", PORT):
        pass
    netns.remove(host.inside("ghost"))


def test_a_namespace_that_goes_is_said_once_and_is_connected_again(host: DaemonHost) -> None:
    reports, repairs = host.client.get("/v1/drift", limit=1000), host.status()["drift_repairs"]
    said = host.log().count(_note(host, "third"))
    _remove(host, "third")
    for _ in range(3):
        host.client.post("/v1/resume", {})  # everything is compared, and then a commit applied
        assert host.outcome(host.commit())["result"] == "applied"
    assert host.log().count(_note(host, "third")) == said + 1
    assert host.status()["last_error"] == ""
    _make(host, "third")
    host.settle()
    with lossless(host, "client", "third", PORT):
        pass
    assert (host.client.get("/v1/drift", limit=1000), host.status()["drift_repairs"]) == (reports, repairs)


def test_drift_is_repaired_while_a_workload_is_absent(without_third: DaemonHost) -> None:
    host = without_third
    host.ip("route", "del", host.addresses("web")[0])
    assert host.drift(table="routes", what="deleted")["repaired_ms"] is not None
    with lossless(host, "client", "web", PORT):
        pass


def test_a_route_that_keeps_packets_from_leaving_is_put_back(without_third: DaemonHost) -> None:
    host = without_third
    address = host.addresses("third")[0]
    host.ip("route", "del", "unreachable", address)
    until(lambda: "unreachable" in host.ip("route", "show", address), "the route is back")


def test_a_namespace_that_goes_and_comes_while_nobody_may_write_is_connected_at_the_end(host: DaemonHost) -> None:
    _remove(host, "third")
    host.client.post("/v1/suspend", {"reason": "maintenance"})
    _make(host, "third")
    assert host.status()["state"] == "suspended"
    host.client.post("/v1/resume", {})
    host.settle()
    with lossless(host, "client", "third", PORT):
        pass


def test_a_workload_whose_process_ends_waits_for_another(tmp_path: Path) -> None:
    """Nothing tells of it, so an audit finds out; nobody has collected the process by then."""
    with made_host(tmp_path, "web", audit_interval_s=0.2) as host, _namespace_of_a_process() as process:
        host.write("workloads/short.yaml", host.workload("short", netns=f"/proc/{process.pid}/ns/net"))
        assert host.outcome(host.commit())["notes"] == []
        process.kill()
        until(lambda: host.status()["absent"], "the end is noticed")
        until(lambda: host.status()["tables"]["links"] == 1, "its link is gone")
        assert host.status()["last_error"] == ""


def test_a_namespace_that_may_not_be_opened_is_an_error_and_not_absent(tmp_path: Path) -> None:
    somebody = ("setpriv", "--reuid=65534", "--clear-groups")
    with made_host(tmp_path, "web", started=False) as host, _namespace_of_a_process(*somebody) as process:
        host.write("workloads/short.yaml", host.workload("short", netns=f"/proc/{process.pid}/ns/net"))
        host.commit()
        command = host.command("apply")
        limited = [*command[:2], "setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", *command[2:]]
        refused = subprocess.run(limited, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert refused.returncode == 11
        wanted = f"cannot enter the network namespace /proc/{process.pid}/ns/net: Permission denied"
        assert wanted in refused.stderr
        assert host.plumb("apply").returncode == 0


def test_a_probe_of_an_absent_workload_proves_nothing(without_third: DaemonHost) -> None:
    probes = [
        {"name": "from", "from": "default/third", "to": "default/web", "port": 9, "timeout": 0.2},
        {"name": "to", "from": "default/web", "to": "default/third", "port": 9, "timeout": 0.2},
    ]
    without_third.write("cluster.yaml", document("Cluster", "demo", {"probes": probes}))
    assert without_third.outcome(without_third.commit())["result"] == "applied"


def _connect_to_elsewhere(host: DaemonHost) -> None:
    """Nothing but what is routed goes over the link: no neighbours are asked for."""
    outside = host.inside("outside")
    netns.create(outside)
    host.ip("link", "add", "out0", "type", "veth", "peer", "name", "out1", "netns", Path(outside).name)
    for link, where in (("out0", host.path), ("out1", outside)):
        host.ip("link", "set", link, "addrgenmode", "none", netns=where)
        host.ip("link", "set", link, "arp", "off", "up", netns=where)
    for family in ("-4", "-6"):
        host.ip(family, "route", "add", "default", "dev", "out0")


def _note(host: DaemonHost, name: str) -> str:
    where = f"workload default/{name}: network namespace {host.inside(name)} is missing"
    return f"workloads/{name}.yaml:2: {where}; its link and rows wait for it"


@contextmanager
def _namespace_of_a_process(*wrapped: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["unshare", "--net", *wrapped, "cat"], stdin=subprocess.PIPE) as process:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "cat\n", "it is where and who it should be")
        yield process


def _make(host: DaemonHost, name: str) -> None:
    """As people do it, so that there is a file before there is a namespace."""
    subprocess.run(["ip", "netns", "add", Path(host.inside(name)).name], check=True)
    host.ip("link", "set", "lo", "up", netns=host.inside(name))


def _remove(host: DaemonHost, name: str) -> None:
    """Returns when it was noticed."""
    netns.remove(host.inside(name))
    until(lambda: host.status()["state"] == "degraded", "the missing namespace is noticed")


def _send(host: DaemonHost, addresses: list[str] | tuple[str, ...]) -> None:
    """A datagram to each, from `client`."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.inside(host.inside("client")), socket.socket(family, socket.SOCK_DGRAM) as opened:
            opened.sendto(b"x", (address, PORT))


def _left(host: DaemonHost) -> int:
    """Packets that left by `out0`."""
    (link,) = json.loads(host.ip("-j", "-s", "link", "show", "dev", "out0"))
    return int(link["stats64"]["tx"]["packets"])
