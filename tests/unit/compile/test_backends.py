"""A policy towards a service reaches its endpoints, and nothing else of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.model.policy import ServicePeer
from reconciler.model.selector import Selector, label_is
from reconciler.model.service import EndpointSlice, Service, ServicePort, SliceEndpoint

from .lookup import IpAddress, judge
from .worlds import PROGRAMS, TCP, THERE, address_of, app, facts_of, item, origin, rule, snapshot_of, workload

CLIENT = workload("client", {"app": "client"})
DB = workload("db", {"app": "db"}, THERE)
OTHER = workload("other", {"app": "other"})
ELSEWHERE = workload("elsewhere", {"app": "db"}, namespace="shop")
ALL = (CLIENT, DB, OTHER, ELSEWHERE)
CLUSTER_IP, OUTSIDE, OUTSIDE6 = IPv4Address("10.96.0.1"), IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")


def service(name: str, selector: dict[str, str] | None = None, namespace: str = "default", **labels: str) -> Service:
    port = ServicePort("", TCP, 5432, 5432)
    place = origin("Service", name)
    return Service(
        namespace, name, place, labels=labels, selector=selector or {}, ports=(port,), cluster_ips=(CLUSTER_IP,)
    )


def endpoints(name: str, of: str, *addresses: IpAddress, namespace: str = "default") -> EndpointSlice:
    found = tuple(SliceEndpoint((address,)) for address in addresses)
    return EndpointSlice(namespace, name, origin("EndpointSlice", name), of, endpoints=found)


def compiled(
    peer: ServicePeer,
    services: list[Service],
    slices: list[EndpointSlice] | None = None,
    cache: CompileCache | None = None,
) -> Desired:
    policy = rule(app("client"), egress=(item("egress[0]", (peer,)),))
    snapshot = replace(
        snapshot_of(ALL, [policy]),
        services={one.reference: one for one in services},
        slices={one.reference: one for one in slices or []},
    )
    return compile_host(snapshot, facts_of(ALL), cache or CompileCache(), PROGRAMS)


def reaches(desired: Desired, peer: IpAddress) -> bool:
    own = address_of(CLIENT, ALL, peer.version)
    return judge(desired, own, peer, TCP, 5432, egress=True).passes


def reached(desired: Desired) -> list[str]:
    return [one.reference for one in ALL if reaches(desired, address_of(one, ALL))]


def test_21_a_selector_means_workloads_of_the_services_namespace_and_not_its_own_address() -> None:
    desired = compiled(ServicePeer("default", "db"), [service("db", {"app": "db"})])
    assert reached(desired) == ["default/db"]
    assert not reaches(desired, CLUSTER_IP)
    assert not reaches(desired, OUTSIDE)


def test_slices_mean_their_addresses_of_both_families() -> None:
    slices = [endpoints("a", "ledger", OUTSIDE), endpoints("b", "ledger", OUTSIDE6), endpoints("c", "none", CLUSTER_IP)]
    desired = compiled(ServicePeer("default", "ledger"), [service("ledger")], slices)
    assert reaches(desired, OUTSIDE)
    assert reaches(desired, OUTSIDE6)
    assert not reaches(desired, CLUSTER_IP)
    assert reached(desired) == []


def test_an_address_of_a_workload_in_a_slice_is_that_workload_alone() -> None:
    slices = [endpoints("a", "mixed", address_of(OTHER, ALL))]
    desired = compiled(ServicePeer("default", "mixed"), [service("mixed")], slices)
    assert reached(desired) == ["default/other"]


def test_a_slice_of_another_namespace_is_another_services() -> None:
    slices = [endpoints("a", "ledger", OUTSIDE, namespace="shop")]
    assert not reaches(compiled(ServicePeer("default", "ledger"), [service("ledger")], slices), OUTSIDE)


@pytest.mark.parametrize(
    ("peer", "workloads"),
    [
        (ServicePeer("", "db"), ["default/db", "shop/elsewhere"]),
        (ServicePeer("shop", "db"), ["shop/elsewhere"]),
        (ServicePeer("shop", "none"), []),
        (ServicePeer("", selector=Selector((label_is("any", "tier", "data"),))), ["default/db"]),
        (ServicePeer("shop", selector=Selector((label_is("k8s", "tier", "data"),))), []),
        (ServicePeer("", selector=Selector()), ["default/db", "shop/elsewhere"]),
        (ServicePeer("", selector=Selector((label_is("container", "tier", "data"),))), []),
    ],
)
def test_services_are_meant_by_name_or_labels_in_one_namespace_or_all(peer: ServicePeer, workloads: list[str]) -> None:
    services = [service("db", {"app": "db"}, tier="data"), service("db", {"app": "db"}, namespace="shop")]
    assert reached(compiled(peer, services)) == workloads


def test_a_service_with_no_endpoints_is_nobody() -> None:
    desired = compiled(ServicePeer("default", "db"), [service("db")])
    assert reached(desired) == []
    assert not reaches(desired, OUTSIDE)


def test_a_service_that_changes_changes_what_the_same_rule_means() -> None:
    cache = CompileCache()
    peer = ServicePeer("default", "db")
    found = [reached(compiled(peer, [service("db", {"app": name})], cache=cache)) for name in ("db", "other", "db")]
    assert found == [["default/db"], ["default/other"], ["default/db"]]
