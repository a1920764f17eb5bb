"""Which addresses and node ports services are given."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from reconciler.errors import CompileError
from reconciler.host.service_facts import ServiceFactsMemory, service_facts
from reconciler.model.cluster import Services
from reconciler.model.facts import NO_SERVICES, ServiceFacts
from reconciler.model.service import FamilyPolicy, Service, ServicePort, ServiceType
from reconciler.store.embedded import EmbeddedStore
from tests.unit.compile.service_worlds import service, snapshot_of

FOUR, SIX = ip_network("10.96.0.0/24"), ip_network("fd96::/120")


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path / "store.sqlite")


def given(
    store: EmbeddedStore,
    *some: Service,
    settings: Services | None = None,
    memory: ServiceFactsMemory | None = None,
) -> ServiceFacts:
    snapshot = snapshot_of(some)
    cluster = replace(snapshot.cluster, services=settings or Services((FOUR, SIX)))
    return service_facts(replace(snapshot, cluster=cluster), store, memory)


def test_a_service_of_one_family_gets_one_address_of_the_first(store: EmbeddedStore) -> None:
    (address,) = given(store, service(cluster_ips=())).addresses["default/web"]
    assert address in FOUR


def test_a_service_that_asks_for_more_than_before_is_given_it(store: EmbeddedStore) -> None:
    memory = ServiceFactsMemory()
    before = given(store, service(cluster_ips=()), service("b", cluster_ips=()), memory=memory).addresses
    wider = service(cluster_ips=(), family_policy=FamilyPolicy.REQUIRE_DUAL)
    after = given(store, wider, service("b", cluster_ips=()), memory=memory).addresses
    assert after["default/web"][0] == before["default/web"][0]
    assert (len(after["default/web"]), after["default/b"]) == (2, before["default/b"])


def test_a_service_whose_address_another_host_changed_is_given_the_new_one(store: EmbeddedStore) -> None:
    memory, web = ServiceFactsMemory(), service(cluster_ips=())
    given(store, web, memory=memory)
    given(store, service(cluster_ips=(FOUR[9],)))
    assert given(store, web, memory=memory).addresses == {"default/web": (FOUR[9],)}


def test_what_was_refused_before_is_refused_again(store: EmbeddedStore) -> None:
    memory, web = ServiceFactsMemory(), service(cluster_ips=(), families=(6,))
    for _ in range(2):
        with pytest.raises(CompileError, match="needs an address"):
            given(store, web, settings=Services((FOUR,)), memory=memory)


def test_a_service_gets_the_families_that_it_names_in_their_order(store: EmbeddedStore) -> None:
    web = service(cluster_ips=(), families=(6, 4), family_policy=FamilyPolicy.REQUIRE_DUAL)
    first, second = given(store, web).addresses["default/web"]
    assert (first in SIX, second in FOUR) == (True, True)


def test_one_that_prefers_two_takes_what_there_is(store: EmbeddedStore) -> None:
    web = service(cluster_ips=(), family_policy=FamilyPolicy.PREFER_DUAL)
    assert len(given(store, web, settings=Services((SIX,))).addresses["default/web"]) == 1


def test_an_address_that_is_asked_for_is_the_one(store: EmbeddedStore) -> None:
    four, six = service("a", cluster_ips=(FOUR[7],)), service("b", cluster_ips=(ip_address("2001:db8::7"),))
    found = given(store, four, six, settings=Services((FOUR,))).addresses
    assert found == {"default/a": (FOUR[7],), "default/b": (ip_address("2001:db8::7"),)}


def test_a_family_that_the_cluster_lacks_is_refused_by_place(store: EmbeddedStore) -> None:
    with pytest.raises(CompileError, match=r"service/web\.yaml:1 .* default/web needs an address .* there are 10\.96"):
        given(store, service(cluster_ips=(), families=(6,)), settings=Services((FOUR,)))


def test_nothing_is_chosen_that_a_service_has_for_the_outside(store: EmbeddedStore) -> None:
    mine = next(iter(snapshot_of(()).nodes.values())).address4
    assert mine is not None
    port = ServicePort("", 6, 30000, 80)
    outside = service(
        "a", cluster_ips=(FOUR[9],), ports=(port,), external_ips=(FOUR[1], mine), load_balancer_ip=FOUR[2]
    )
    chosen = service("b", cluster_ips=(), type=ServiceType.NODE_PORT)
    found = given(store, outside, chosen, settings=Services((FOUR,), 30000, 30001))
    assert found.addresses["default/b"] == (FOUR[3],)
    assert list(found.node_ports.values()) == [30001]


def test_node_ports_are_for_services_that_nodes_serve(store: EmbeddedStore) -> None:
    port = ServicePort("", 6, 80, 80)
    some = [
        service("plain", cluster_ips=()),
        service("node", [replace(port, node_port=31000)], type=ServiceType.NODE_PORT, cluster_ips=()),
        service("lb", [port], type=ServiceType.LOAD_BALANCER, cluster_ips=()),
        service("no", [port], type=ServiceType.LOAD_BALANCER, allocates_node_ports=False, cluster_ips=()),
    ]
    found = given(store, *some).node_ports
    assert found.keys() == {"default/node 80/6", "default/lb 80/6"}
    assert found["default/node 80/6"] == 31000


def test_nobody_is_given_anything_where_services_are_not_served(store: EmbeddedStore) -> None:
    snapshot = snapshot_of([service(cluster_ips=())])
    plain = replace(snapshot, cluster=replace(snapshot.cluster, services=None))
    assert service_facts(plain, store) is NO_SERVICES


def test_headless_services_get_no_address(store: EmbeddedStore) -> None:
    assert given(store, service(headless=True, cluster_ips=())).addresses == {}
