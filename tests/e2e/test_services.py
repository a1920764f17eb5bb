"""Services of a commit on a real host: rows in the kernel, what commands show of them, what is put right again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.errors import CompileError
from reconciler.host import Host
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import DaemonHost, cluster, made_host, node

pytestmark = pytest.mark.root
TABLES = ("frontends", "services", "backends")

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  clusterIP: 10.96.0.9
  externalIPs: [198.51.100.3]
  loadBalancerSourceRanges: [192.0.2.0/24]
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
LEDGER = """
apiVersion: v1
kind: Service
metadata: {name: ledger}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ledger-1, labels: {kubernetes.io/service-name: ledger}, annotations: {plumbline/weight: "2"}}
addressType: IPv4
endpoints:
  - {addresses: [203.0.113.7]}
  - {addresses: [203.0.113.8], conditions: {ready: false, serving: true, terminating: true}}
ports: [{port: 8443}]
"""
HEADLESS = """\
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: anybody}
spec: {clusterIP: None, selector: {app: web}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    """It serves two Services: `web` of one workload, and `ledger` of addresses elsewhere."""
    with made_host(tmp_path_factory.mktemp("services"), "web", started=False) as found:
        found.write("cluster.yaml", cluster(services={"cidrs": ["10.96.0.0/24"]}))
        found.write("services/web.yaml", WEB)
        found.write("services/ledger.yaml", LEDGER)
        found.write("services/peers.yaml", HEADLESS)
        found.commit()
        yield found


@pytest.fixture
def host(made: DaemonHost) -> Iterator[Host]:
    with inside(made.path), Host.open(made.config) as opened:
        opened.converge(made.git("rev-parse", "HEAD"))
        yield opened


def shown(host: Host, service: str) -> Any:
    (found,) = (one for one in host.listing().services() if one["service"] == service)
    return found


def test_after_a_commit_nothing_is_left_to_do(host: Host) -> None:
    assert not host.plan(host.base)
    assert {name: len(host.tables[name].live()) > 0 for name in TABLES} == dict.fromkeys(TABLES, True)


def test_a_service_is_shown_with_its_frontends_and_backends_and_their_places(host: Host) -> None:
    web, ledger = shown(host, "default/web"), shown(host, "default/ledger")
    (port,) = web["ports"]
    assert "10.96.0.9:80/tcp" in [one["frontend"] for one in port["frontends"]]
    assert port["node_port"] in range(30000, 32768)
    [backend] = port["backends"]
    assert (backend["state"], backend["local"], backend["origin"]["path"]) == ("active", True, "workloads/web.yaml")
    states = {one["backend"]: (one["state"], one["new_flows"], one["weight"]) for one in ledger["ports"][0]["backends"]}
    assert states == {"203.0.113.7:8443": ("active", True, 2), "203.0.113.8:8443": ("draining", False, 2)}


def test_a_headless_service_is_shown_with_its_backends(made: DaemonHost, host: Host) -> None:
    address, peers = host.listing().endpoints()[0]["addresses"][0], shown(host, "default/peers")
    assert (peers["headless"], peers["addresses"], peers["ports"][0]["frontends"]) == (True, [], [])
    four, six = peers["ports"][0]["backends"]
    assert (four["state"], four["source"]) == ("active", "Workload default/web")
    assert (four["backend"], six["backend"].endswith("]:8080")) == (f"{address}:8080", True)
    [anybody] = shown(host, "default/anybody")["ports"]
    assert (anybody["port"], anybody["backends"][0]["backend"]) == ("any", address)
    assert "headless" in made.plumb("service", "list").stdout
    assert "no frontends: it is headless" in made.plumb("service", "show", "default/peers").stdout


def test_an_address_that_was_given_stays_over_commits(made: DaemonHost, host: Host) -> None:
    (before,) = shown(host, "default/ledger")["addresses"]
    made.write("services/other.yaml", LEDGER.replace("ledger", "other"))
    host.converge(made.commit())
    assert shown(host, "default/ledger")["addresses"] == [before] != shown(host, "default/other")["addresses"]


def test_a_change_of_backends_is_another_version_and_the_old_one_goes(made: DaemonHost, host: Host) -> None:
    before = set(host.tables["services"].live().rows)  # type: ignore[union-attr]
    made.write("services/ledger.yaml", LEDGER.replace("203.0.113.7", "203.0.113.9"))
    record = host.converge(made.commit())
    assert record is not None
    assert record.counts["services"].added == record.counts["services"].removed == 1
    assert len(before & set(host.tables["services"].live().rows)) == len(before) - 1  # type: ignore[union-attr]
    assert not host.plan(host.base)


def test_going_back_restores_every_row(made: DaemonHost, host: Host) -> None:
    before, rows = host.base, {name: host.listing().rows(name) for name in TABLES}
    made.write("services/ledger.yaml", LEDGER.replace("203.0.113.7", "203.0.113.10"))
    host.converge(made.commit())
    host.converge(before)
    assert {name: host.listing().rows(name) for name in TABLES} == rows


@pytest.mark.parametrize("name", ["frontends4", "services", "service_tables", "service_sources4", "backends"])
def test_rows_that_somebody_takes_away_are_put_back(host: Host, name: str) -> None:
    map_ = host._tables.maps.open(name)
    map_.delete(map_.read()[0])
    plan = host.drift(TABLES)
    assert plan is not None
    host.repair(plan)
    assert host.drift(TABLES) is None


def test_commands_show_services(made: DaemonHost, host: Host) -> None:
    listed = made.plumb("service", "list")
    assert listed.returncode == 0, listed.stderr
    assert "default/web" in listed.stdout
    told = made.plumb("service", "show", "web")
    assert "services/web.yaml:2" in told.stdout
    assert json.loads(made.plumb("service", "show", "web", "-o", "json").stdout)["addresses"] == ["10.96.0.9"]
    assert "10.96.0.9:80/tcp inside" in made.plumb("map", "show", "frontends").stdout
    assert "no service is called nobody" in made.plumb("service", "show", "nobody").stderr


def test_a_list_counts_endpoints_and_shows_node_ports_and_external_addresses(made: DaemonHost, host: Host) -> None:
    dual = WEB.replace("name: web", "name: dual").replace("10.96.0.9", "10.96.0.10").replace("100.3", "100.4")
    more = "{name: metrics, port: 81, targetPort: 8081}, {name: http,"
    made.write("services/dual.yaml", dual.replace("{name: http,", more))
    host.converge(made.commit())
    numbers = [port["node_port"] for port in shown(host, "default/dual")["ports"]]
    listed = made.plumb("service", "list").stdout.splitlines()
    (line,) = (line for line in listed if "default/dual" in line)
    ports = f"81:{numbers[0]}/tcp, 80:{numbers[1]}/tcp"
    assert [line.split()[-2] for line in listed if "default/ledger" in line] == ["1/2"]  # one of its addresses drains
    assert line.split() == f"default/dual LoadBalancer 10.96.0.10 198.51.100.4 {ports} 1/1 services/dual.yaml:2".split()
    (made.tree / "services/dual.yaml").unlink()
    host.converge(made.commit())


def test_commands_show_who_answers_directly_where_anybody_does(made: DaemonHost, host: Host) -> None:
    assert "DIRECT" not in made.plumb("service", "show", "web").stdout
    before, services = (made.tree / "cluster.yaml").read_text(), {"cidrs": ["10.96.0.0/24"], "directReturn": "option"}
    elsewhere = made.workload("web-2", node="beta", addresses=["10.46.1.9"], labels={"app": "web"})
    made.write("cluster.yaml", cluster(services=services) + node("beta", cidrs=["10.46.1.0/24"]) + elsewhere)
    host.converge(made.commit())
    lines = [line.split() for line in made.plumb("service", "show", "web").stdout.splitlines()]
    (column,) = (line.index("DIRECT") for line in lines if "DIRECT" in line)
    assert [line[column] for line in lines if line[:1] == ["10.46.1.9:8080"]] == ["yes"]
    assert [line[column] for line in lines if "workloads/web.yaml:2" in line] == ["no"]
    made.write("cluster.yaml", before)
    host.converge(made.commit())


def test_a_cluster_without_room_for_a_service_refuses_the_commit(made: DaemonHost, host: Host) -> None:
    base = host.base
    made.write("services/six.yaml", LEDGER.replace("ledger", "six").replace("{ports", "{ipFamilies: [IPv6], ports"))
    with pytest.raises(CompileError, match=r"services/six\.yaml:2 .* services\.cidrs of the Cluster cannot give"):
        host.converge(made.commit())
    assert host.base == base
