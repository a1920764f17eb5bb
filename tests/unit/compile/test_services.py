"""Services as rows: who is behind which frontend, for whom, and what their numbers depend on."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import numpy as np
import pytest

from reconciler.compile.budget import Budget
from reconciler.compile.service_join import draws
from reconciler.compile.service_versions import Served, backend_id
from reconciler.compile.services import ServiceMemory, services
from reconciler.errors import CompileError
from reconciler.model.balancing import Algorithm, BackendFlag, FrontendFlag, WhenNone
from reconciler.model.cluster import NamedPort
from reconciler.model.facts import REMOTE_ROW, RemoteEndpoints, ServiceFacts
from reconciler.model.service import (
    AllUnhealthy,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
    TrafficPolicy,
)

from .service_worlds import World, service, slice_of, snapshot_of
from .worlds import COMMIT, TCP, THERE, UDP, facts_of, origin, workload

APP = {"app": "web"}
COLLIDING = ("11.0.142.105", "11.1.54.172")  # at port 9000 they draw the same number first


def ready(address: str, **conditions: bool) -> SliceEndpoint:
    return SliceEndpoint((ip_address(address),), **conditions)


def test_a_selector_finds_workloads_of_its_namespace_on_every_node() -> None:
    others = [workload("a", APP), workload("b", APP, THERE), workload("c", {"app": "db"})]
    world = World([service()], [*others, workload("d", APP, namespace="shop")])
    assert world.backends() == {"10.44.1.2:8080": 1, "10.44.2.3:8080": 1}


def test_a_selector_finds_workloads_that_other_hosts_announced() -> None:
    here = workload("a", APP)
    facts = facts_of([here])
    row = (0, 0xFFFF << 32 | int(IPv4Address("10.44.2.9")), 256, 0, 1)
    ports = (frozenset[NamedPort](), frozenset({NamedPort("http", 8088, TCP)}))
    remote = RemoteEndpoints(np.array([row], REMOTE_ROW), ["default/z"], [THERE], [origin("Workload", "z")], ports)
    world = World([service(ports=[ServicePort("", TCP, 80, "http")])], [here], facts=replace(facts, remote=remote))
    assert world.backends() == {"10.44.2.9:8088": 1}


def test_a_named_port_is_each_workloads_own() -> None:
    one, two = NamedPort("http", 8001, TCP), NamedPort("http", 8002, TCP)
    some = [workload("a", APP, ports=[one]), workload("b", APP, ports=[two]), workload("c", APP)]
    world = World([service(ports=[ServicePort("", TCP, 80, "http")])], some)
    assert world.backends() == {"10.44.1.2:8001": 1, "10.44.1.3:8002": 1}


def test_a_named_port_is_one_of_the_same_protocol() -> None:
    some = [workload("a", APP, ports=[NamedPort("dns", 53, TCP)])]
    assert World([service(ports=[ServicePort("", UDP, 80, "dns")])], some).backends() == {}


def test_slices_bring_any_address_by_the_name_of_the_port() -> None:
    ports = (SlicePort("admin", TCP, 9001), SlicePort("http", TCP, 9000))
    web = service(ports=[ServicePort("http", TCP, 80, 8080)], selector={})
    assert World([web], slices=[slice_of("web", "203.0.113.1", ports=ports)]).backends() == {"203.0.113.1:9000": 1}


def test_what_a_slice_says_of_a_workloads_address_counts() -> None:
    slices = [slice_of("web", ready("10.44.1.2", ready=False, serving=True), ports=(SlicePort("", TCP, 8080),))]
    world = World([service()], [workload("a", APP), workload("b", APP)], slices)
    assert world.backends() == {"10.44.1.3:8080": 1}
    assert world.states()["10.44.1.2:8080"] == BackendFlag.DRAINING | BackendFlag.LOCAL


def test_a_backend_that_drains_keeps_its_row_and_gets_no_flows() -> None:
    draining = ready("203.0.113.2", ready=False, serving=True, terminating=True)
    dead = ready("203.0.113.3", ready=False, serving=False)
    world = World([service()], slices=[slice_of("web", "203.0.113.1", draining, dead)])
    assert world.backends() == {"203.0.113.1:9000": 1}
    assert world.states() == {"203.0.113.1:9000": 0, "203.0.113.2:9000": BackendFlag.DRAINING}


def test_where_all_drain_they_still_serve() -> None:
    draining = ready("203.0.113.2", ready=False, serving=True)
    assert World([service()], slices=[slice_of("web", draining)]).backends() == {"203.0.113.2:9000": 1}


def test_weights_are_those_of_slices_and_workloads_and_none_is_no_flows() -> None:
    slices = [
        slice_of("web", "203.0.113.1", name="a", weight=9),
        slice_of("web", "203.0.113.2", name="b", weight=0),
    ]
    world = World([service()], [replace(workload("a", APP), weight=3)], slices)
    assert world.backends() == {"10.44.1.2:8080": 3, "203.0.113.1:9000": 9}
    assert world.states()["203.0.113.2:9000"] == BackendFlag.DRAINING


def test_both_families_have_frontends_with_backends_of_their_own() -> None:
    web = service(cluster_ips=(ip_address("10.96.0.1"), ip_address("fd96::1")))
    world = World([web], [workload("a", APP)])
    assert world.backends("10.96.0.1") == {"10.44.1.2:8080": 1}
    assert world.backends("fd96::1") == {"fd44:1::2:8080": 1}


def test_a_family_without_frontends_needs_no_backends() -> None:
    assert set(World([service()], [workload("a", APP)]).states()) == {"10.44.1.2:8080"}


def test_an_address_that_was_given_is_a_frontend() -> None:
    world = World([service(cluster_ips=())], said=ServiceFacts({"default/web": (ip_address("10.96.0.7"),)}))
    assert set(world.frontends()) == {("10.96.0.7", 80, "inside")}


def test_headless_services_and_aliases_have_no_frontends() -> None:
    alias = service("b", type=ServiceType.EXTERNAL_NAME, ports=())
    assert World([service("a", headless=True, cluster_ips=()), alias]).frontends() == {}


def test_where_the_cluster_serves_none_there_are_no_rows() -> None:
    snapshot = snapshot_of([service()])
    plain = replace(snapshot, cluster=replace(snapshot.cluster, services=None))
    found = services(plain, facts_of([]), ServiceMemory())
    assert [len(rows) for rows in found.tables().values()] == [0, 0, 0]


def test_addresses_for_the_outside_serve_both_sides_and_the_nodes_own_too() -> None:
    web = service(
        type=ServiceType.LOAD_BALANCER,
        external_ips=(ip_address("198.51.100.7"),),
        load_balancer_ip=ip_address("198.51.100.8"),
    )
    world = World([web], said=ServiceFacts(node_ports={"default/web 80/6": 30080}))
    outside = {("198.51.100.7", 80), ("198.51.100.8", 80), ("192.0.2.1", 30080)}
    assert {key[:2] for key in world.frontends() if key[2] == "outside"} == outside
    assert {key[:2] for key in world.frontends() if key[2] == "inside"} == outside | {("10.96.0.1", 80)}


def test_node_ports_are_of_the_families_of_their_service() -> None:
    web = service(type=ServiceType.NODE_PORT, cluster_ips=(ip_address("fd96::1"),))
    world = World([web], said=ServiceFacts(node_ports={"default/web 80/6": 30080}))  # the node's address is of IPv4
    assert set(world.frontends()) == {("fd96::1", 80, "inside")}


def test_scopes_that_say_the_same_share_a_version() -> None:
    world = World([service(external_ips=(ip_address("198.51.100.7"),))], [workload("a", APP)])
    assert len(world.rows.services) == 1


def test_local_traffic_from_outside_stays_on_the_node() -> None:
    web = service(external_ips=(ip_address("198.51.100.7"),), external_traffic=TrafficPolicy.LOCAL)
    world = World([web], [workload("a", APP), workload("b", APP, THERE)])
    assert world.backends("198.51.100.7", scope="outside") == {"10.44.1.2:8080": 1}
    assert len(world.backends("198.51.100.7", scope="inside")) == 2
    assert world.flags("198.51.100.7", 80, "outside") == FrontendFlag.LOCAL


def test_local_traffic_without_a_backend_here_is_dropped() -> None:
    world = World([service(internal_traffic=TrafficPolicy.LOCAL)], [workload("b", APP, THERE)])
    assert world.row() == replace(world.row(), backends=(), when_none=WhenNone.DROP)


def test_a_service_without_backends_refuses() -> None:
    assert (World([service()]).row().backends, World([service()]).row().when_none) == ((), WhenNone.REFUSE)


def test_source_ranges_are_for_clients_outside_and_of_one_family() -> None:
    ranges = (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
    web = service(type=ServiceType.LOAD_BALANCER, load_balancer_ip=ip_address("198.51.100.8"), source_ranges=ranges)
    world = World([web])
    assert world.row("198.51.100.8", scope="outside").sources == ranges[:1]
    assert world.row("198.51.100.8", scope="inside").sources == ()
    assert world.flags("198.51.100.8", 80, "outside") == FrontendFlag.SOURCES


def test_an_unhealthy_backend_gets_no_new_flows() -> None:
    unhealthy = {"default/web": frozenset({(ip_address("10.44.1.2"), 8080, TCP)})}
    world = World([service()], [workload("a", APP), workload("b", APP)], said=ServiceFacts(unhealthy=unhealthy))
    assert world.backends() == {"10.44.1.3:8080": 1}
    assert world.states()["10.44.1.2:8080"] == BackendFlag.UNHEALTHY | BackendFlag.LOCAL


@pytest.mark.parametrize(("setting", "left"), [(AllUnhealthy.REFUSE, {}), (AllUnhealthy.OPEN, {"10.44.1.2:8080": 1})])
def test_where_all_are_unhealthy_a_setting_decides(setting: AllUnhealthy, left: dict[str, int]) -> None:
    unhealthy = {"default/web": frozenset({(ip_address("10.44.1.2"), 8080, TCP)})}
    world = World([service(all_unhealthy=setting)], [workload("a", APP)], said=ServiceFacts(unhealthy=unhealthy))
    assert world.backends() == left


def test_a_service_says_how_it_is_balanced_before_the_cluster_does() -> None:
    plain, said = World([service()]).row(), World([service(algorithm=Algorithm.RANDOM, affinity_s=30)]).row()
    assert (plain.algorithm, plain.affinity_s) == (Algorithm.MAGLEV, 0)
    assert (said.algorithm, said.affinity_s) == (Algorithm.RANDOM, 30)


def test_another_content_is_another_version_of_the_same_name() -> None:
    one, two = World([service()], [workload("a", APP)]), World([service()], [workload("a", APP), workload("b", APP)])
    assert one.frontends().keys() == two.frontends().keys()
    assert one.frontends() != two.frontends()
    assert one.row().name == two.row().name


def test_a_number_of_a_backend_does_not_depend_on_who_else_is_there() -> None:
    one = World([service()], slices=[slice_of("web", "203.0.113.1")])
    two = World([service(), service("b", cluster_ips=(ip_address("10.96.0.2"),))], slices=[
        slice_of("b", "203.0.113.2", name="b"), slice_of("web", "203.0.113.1", "203.0.113.3")])  # fmt: skip
    assert one.names().items() <= two.names().items()


def test_backends_that_draw_one_number_both_draw_again() -> None:
    world = World([service()], slices=[slice_of("web", "203.0.113.1")])
    result = services(world.snapshot, world.facts, memory := ServiceMemory())
    record = next(iter(memory.known.values()))[2].backends
    other = record[:4] + bytes(8) + (0xFFFF << 32 | 7).to_bytes(8, "little") + record[20:]
    drawn = draws([Served((), (), record), Served((), (), other)])
    numbers = dict(drawn.redrawn)
    name = ip_address("203.0.113.1"), 9000, TCP
    assert set(numbers) == {name, (ip_address("0.0.0.7"), 9000, TCP)}
    assert backend_id(name, {}) == int(result.backends.keys["id"][0]) not in numbers.values()
    assert list(drawn.contested) == [0, 1]


def test_tables_name_the_numbers_that_were_drawn_again() -> None:
    first, second = COLLIDING
    apart = [World([service()], slices=[slice_of("web", one)]).row().backends for one in COLLIDING]
    assert apart[0] == apart[1]
    both = World([service()], slices=[slice_of("web", first, second)])
    assert both.backends() == {f"{first}:9000": 1, f"{second}:9000": 1}
    assert apart[0][0] not in both.row().backends


def test_two_services_with_one_frontend_are_refused_by_place() -> None:
    some = [service("a"), service("b")]
    with pytest.raises(CompileError, match=r"service/b\.yaml:1 .* port 80 of 10\.96\.0\.1 .* service/a\.yaml:1"):
        World(some)


def test_rows_over_the_budget_are_refused() -> None:
    world = World([service()])
    with pytest.raises(CompileError, match="need 1 rows of services, over the limit of 0"):
        services(world.snapshot, world.facts, ServiceMemory(), Budget(service_rows=0))


def test_rows_know_the_service_that_asks_for_them() -> None:
    world = World([service()], [workload("a", APP)])
    rows = world.rows
    assert {rows.frontends.origin(0), rows.backends.origin(0), *rows.services.origins.values()} == {
        origin("Service", "web")
    }


def test_what_did_not_change_is_not_worked_out_again() -> None:
    some = [service("a"), service("b", cluster_ips=(ip_address("10.96.0.2"),))]
    world, memory = World(some, [workload("x", {"app": "b"})]), ServiceMemory()
    services(world.snapshot, world.facts, memory)
    before = {name: known[2] for name, known in memory.known.items()}
    again = {one.reference: replace(one, origin=replace(one.origin, commit="d" * 40)) for one in some}
    said = ServiceFacts({"default/a": (ip_address("10.96.0.3"),)})
    commit = replace(world.snapshot, commit="d" * 40, services=again)
    found = services(commit, replace(world.facts, services=said), memory)
    assert {name for name, known in memory.known.items() if known[2] is before[name]} == {"default/b"}
    assert {one.commit for one in found.frontends.origins} == {"d" * 40} != {COMMIT}
