"""Drift of every table: somebody changes what is ours, the daemon puts it back and tells what, why and by whom."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.bpf import programs
from reconciler.bpf.syscalls import held
from reconciler.kernel import netns
from reconciler.model.network import PROTOCOL
from tests.e2e.daemon_host import DaemonHost, allowing, cluster, made_host, node, policy, until
from tests.e2e.packet_flow import lossless
from tests.e2e.tampering import (
    bpftool,
    empty,
    erase,
    forget_state,
    in_web,
    link_pin,
    map_pin,
    neighbour,
    pinned,
    policy_of,
    program_pin,
    sysctl,
    tc,
)

pytestmark = pytest.mark.root

PORT = 4000
RULES = [{"family": 4, "priority": 1200, "table": 77, "mark": 7}]
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  externalIPs: [198.51.100.3]
  loadBalancerSourceRanges: [192.0.2.0/24]
  ports: [{port: 80}]
"""
Deed = Callable[[DaemonHost], None]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", "bystander", audit_interval_s=600) as made:
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
        made.write("base.yaml", (made.tree / "base.yaml").read_text().replace(node(), node(rules=RULES)))
        made.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/24"]}))
        made.write("services/web.yaml", SERVICE)
        made.wait_for(made.commit())
        yield made


@pytest.fixture
def host(shared: DaemonHost) -> Iterator[DaemonHost]:
    """Nothing has drifted before, and nothing is left drifted."""
    shared.settle()
    before = shared.rows()
    yield shared
    until(lambda: shared.rows() == before, "every row is back")


def test_a_deleted_link_comes_back_with_all_that_hung_on_it(host: DaemonHost) -> None:
    host.ip("link", "del", host.device("web"))
    report = host.drift(table="links", what="deleted")
    assert report["keys"] == [host.device("web")]
    _is_told(host, report, "workloads/web.yaml")
    host.settle()
    with lossless(host, "client", "web", PORT):
        pass


@pytest.mark.parametrize(
    ("table", "what", "path", "deed"),
    [
        ("links", "changed", "workloads/web.yaml", lambda h: h.ip("link", "set", h.device("web"), "mtu", "1300")),
        ("carriers", "deleted", "workloads/web.yaml", lambda h: h.ip("link", "set", h.device("web"), "down")),
        ("links", "changed", "workloads/web.yaml", lambda h: in_web(h, "link", "set", "eth0", "down")),
        ("addresses", "deleted", "workloads/web.yaml", lambda h: in_web(h, "address", "flush", "dev", "eth0")),
        ("routes", "deleted", "workloads/web.yaml", lambda h: h.ip("route", "del", h.addresses("web")[0])),
        ("routes", "deleted", "workloads/web.yaml", lambda h: in_web(h, "-6", "route", "del", "default")),
        ("rules", "deleted", "base.yaml", lambda h: h.ip("rule", "del", "priority", "1200")),
        ("neighbours", "deleted", "workloads/web.yaml", lambda h: neighbour(h, "del")),
        ("neighbours", "changed", "workloads/web.yaml", lambda h: neighbour(h, "replace", "lladdr", "2:0:0:0:0:9")),
        ("sysctls", "changed", "workloads/web.yaml", lambda h: sysctl(h, _forwarding(h), "0")),
    ],
)
def test_what_is_changed_by_netlink_is_put_back_and_told(
    host: DaemonHost, table: str, what: str, path: str, deed: Deed
) -> None:
    seen = _seen(host)
    deed(host)
    report = _fresh(host, seen, table, what)
    _is_told(host, report, path)


@pytest.mark.parametrize(
    ("table", "path", "deed"),
    [
        ("endpoints", "workloads/web.yaml", lambda h: erase(h, "endpoints4", "web")),
        ("ipcache", "workloads/web.yaml", lambda h: erase(h, "ipcache4", "web")),
        ("policy", "policies/web.yaml", lambda h: empty(policy_of(h, "web"))),
        ("policy", "", lambda h: empty(pinned(h, "policy"))),
        ("policy", "", forget_state),
        ("frontends", "services/web.yaml", lambda h: empty(pinned(h, "frontends4"))),
        ("services", "services/web.yaml", lambda h: empty(pinned(h, "service_sources4"))),
        ("attachments", "workloads/web.yaml", lambda h: bpftool("link", "detach", "pinned", link_pin(h, "web"))),
    ],
)
def test_what_is_changed_by_bpf_is_put_back_and_told_by_whom(
    host: DaemonHost, table: str, path: str, deed: Deed
) -> None:
    seen = _seen(host)
    deed(host)
    report = _fresh(host, seen, table)
    _is_told(host, report, path)
    assert "bpftool" in report["by"]["command"]
    with lossless(host, "client", "web", PORT):
        pass


@pytest.mark.parametrize(
    ("table", "pin"),
    [
        ("attachments", lambda h: link_pin(h, "web")),
        ("programs", lambda h: program_pin(h, "from_workload")),
        ("programs", lambda h: program_pin(h, "collect_conntrack")),
        ("ipcache", lambda h: map_pin(h, "ipcache4")),
        ("endpoints", lambda h: map_pin(h, "endpoints6")),
        ("policy", lambda h: map_pin(h, "policy")),
        ("policy", lambda h: map_pin(h, "state")),
        ("programs", lambda h: map_pin(h, "conntrack4")),
    ],
)
def test_a_removed_pin_is_put_back_and_told(host: DaemonHost, table: str, pin: Callable[[DaemonHost], str]) -> None:
    seen = _seen(host)
    os.unlink(pin(host))
    assert _fresh(host, seen, table)["by"] is None
    host.settle()
    with lossless(host, "client", "web", PORT):
        pass


def test_a_netlink_writer_that_lives_on_is_told_by_name(host: DaemonHost) -> None:
    seen = _seen(host)
    with subprocess.Popen(["ip", "-n", host.name, "-batch", "-"], stdin=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        writer.stdin.write(f"route del {host.addresses('web')[0]}\n")
        writer.stdin.flush()
        report = _fresh(host, seen, "routes", "deleted")
    assert report["by"]["pid"] == writer.pid
    assert report["by"]["command"].startswith("ip -n")


def test_what_is_added_under_our_own_mark_is_taken_away(host: DaemonHost) -> None:
    seen = _seen(host)
    host.ip("route", "add", "192.0.2.0/24", "dev", host.device("web"), "proto", str(PROTOCOL))
    report = _fresh(host, seen, "routes", "added")
    assert report["origins"] == []


def test_foreign_rows_survive_everything(host: DaemonHost) -> None:
    device = host.device("web")
    stranger = f"{host.path}-stranger"
    netns.create(stranger)
    host.ip("address", "add", "192.0.2.9/32", "dev", device)
    host.ip("route", "add", "198.51.100.0/24", "dev", device)
    host.ip("rule", "add", "priority", "1201", "table", "78")
    host.ip("neighbour", "add", "192.0.2.77", "lladdr", "2:0:0:0:0:1", "dev", device)
    in_web(host, "address", "add", "192.0.2.10/32", "dev", "eth0")
    tc(host, "qdisc", "add", "dev", device, "clsact")
    tc(host, *f"filter add dev {device} ingress protocol ip u32 match u32 0 0 flowid 1:1".split())
    with _foreign_program(host) as link:
        empty(pinned(host, "ipcache4"))
        host.ip("route", "del", host.addresses("web")[0])
        bpftool("link", "detach", "pinned", link_pin(host, "web"))
        host.wait_for(host.commit())
        host.stop()
        host.start()
        host.settle()
        assert programs.link_info(link).ifindex
    assert [word for word, is_there in _foreign(host).items() if not is_there] == []
    assert Path(stranger).exists()
    tc(host, "qdisc", "del", "dev", device, "clsact")
    for line in ("neighbour del 192.0.2.77 dev", "route del 198.51.100.0/24 dev", "address del 192.0.2.9/32 dev"):
        host.ip(*line.split(), device)
    host.ip("rule", "del", "priority", "1201")
    in_web(host, "address", "del", "192.0.2.10/32", "dev", "eth0")
    netns.remove(stranger)


def test_an_address_of_the_host_is_the_hosts_as_long_as_it_has_it(host: DaemonHost) -> None:
    host.ip("address", "add", "192.0.2.30/32", "dev", "lo")
    until(lambda: _belongs_to_host(host, "192.0.2.30"), "the address is the host's")
    host.ip("address", "del", "192.0.2.30/32", "dev", "lo")
    until(lambda: not _belongs_to_host(host, "192.0.2.30"), "the address is nobody's")


def test_whoever_changes_the_links_of_others_is_not_blamed(host: DaemonHost) -> None:
    seen = _seen(host)
    with _foreign_program(host) as link:
        programs.detach(link)
        os.unlink(link_pin(host, "web"))
        assert _fresh(host, seen, "attachments")["by"] is None


def test_an_audit_finds_what_nobody_told(tmp_path: Path) -> None:
    with made_host(tmp_path, "web", audit_interval_s=0.3, attribute_drift=False) as host:
        host.settle()
        before = host.rows()
        assert host.status()["attribution"].startswith("off")
        sysctl(host, f"net/ipv6/conf/{host.device('web')}/accept_ra", "1")
        _is_told(host, host.drift(table="sysctls", what="changed"), "workloads/web.yaml")
        empty(pinned(host, "ipcache4"))
        report = host.drift(table="ipcache", what="deleted")
        assert report["by"] is None
        assert report["unknown_because"]
        assert host.rows() == before


# What is looked for


def _forwarding(host: DaemonHost) -> str:
    return f"net/ipv4/conf/{host.device('web')}/forwarding"


def _belongs_to_host(host: DaemonHost, address: str) -> bool:
    return any(address in row and "reserved:host" in row for row in host.rows()["ipcache"])


def _seen(host: DaemonHost) -> int:
    """How many reports there are."""
    return len(host.client.get("/v1/drift", limit=1000))


def _fresh(host: DaemonHost, seen: int, table: str, what: str = "") -> dict[str, Any]:
    """The first report on this table that came after `seen` others."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        fresh = host.client.get("/v1/drift", limit=1000)[: -seen or None]
        found[:] = [one for one in reversed(fresh) if one["table"] == table and what in ("", one["what"])]
        return bool(found)

    until(is_there, f"drift of {table} is reported")
    return found[0]


def _is_told(host: DaemonHost, report: dict[str, Any], path: str) -> None:
    """`path`: a file that asks for some of the rows; '' for any."""
    assert report["commit"] == host.at
    assert any(origin["path"].startswith(path) for origin in report["origins"])
    for origin in report["origins"]:
        assert origin["commit"] == host.at
        assert origin["line"] > 0
    assert report["repaired_ms"] is not None


@contextmanager
def _foreign_program(host: DaemonHost) -> Iterator[int]:
    """A program of somebody else on the workload's device; its link."""
    code = [programs.move(0, -1), programs.leave()]  # TC_ACT_UNSPEC: the next one decides
    with netns.inside(host.path):
        index = socket.if_nametoindex(host.device("web"))
        with held(programs.load_program(programs.SCHED_CLS, code, name="foreign")) as program:
            link = programs.attach_tcx(program, index, programs.TCX_INGRESS)
    with held(link):
        yield link


def _foreign(host: DaemonHost) -> dict[str, bool]:
    """What others made, and whether it is there."""
    said = [host.ip(what, "show") for what in ("address", "route", "rule", "neighbour")]
    said += [in_web(host, "address", "show"), tc(host, "filter", "show", "dev", host.device("web"), "ingress")]
    text = "\n".join(said)
    words = ("192.0.2.9/", "198.51.100.0/24", "1201:", "192.0.2.77 ", "192.0.2.10/", "u32")
    return {word: word in text for word in words}
