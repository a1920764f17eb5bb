"""What is said of Services that answer nobody."""

from __future__ import annotations

from dataclasses import replace

from reconciler.compile.lint import lint
from reconciler.model.cluster import NamedPort
from reconciler.model.service import ServicePort, SlicePort

from .service_worlds import service, slice_of, snapshot_of
from .worlds import TCP, workload

WEB = workload("web", {"app": "web"}, ports=[NamedPort("http", 80, TCP)])
NAMED = [ServicePort("http", TCP, 80, "http")]


def said(*arguments: object) -> list[str]:
    return [warning.message for warning in lint(snapshot_of(*arguments))]  # type: ignore[arg-type]


def test_a_service_with_backends_is_no_cause_for_words() -> None:
    slices = [slice_of("ledger", "203.0.113.1")]
    assert said([service("web", NAMED), service("ledger", selector={})], [WEB], slices) == []


def test_a_service_that_selects_nobody_is_told_of_with_its_selector() -> None:
    [message] = said([service("db")], [WEB])
    assert message.startswith("default/db has no backend: no workload is app=db, namespace=default")


def test_a_service_without_selector_and_slices_is_told_of() -> None:
    assert "it has no selector, and no EndpointSlice" in said([service(selector={})], [WEB])[0]


def test_where_workloads_come_from_elsewhere_nobody_is_missed() -> None:
    assert said([service("db")]) == []


def test_a_named_port_that_no_workload_has_is_told_of() -> None:
    [message] = said([service("web", [ServicePort("", TCP, 80, "https")])], [WEB])
    assert message == 'default/web has no backend at 80: no workload has a port called "https"'


def test_a_port_that_no_slice_has_is_told_of() -> None:
    slices = [slice_of("ledger", "203.0.113.1", ports=(SlicePort("admin", TCP, 1),))]
    [message] = said([service("ledger", NAMED, selector={})], [WEB], slices)
    assert message == 'default/ledger has no backend at 80: no EndpointSlice of it has a port called "http"'


def test_what_is_accepted_and_not_served_is_told_of() -> None:
    web = service("web", NAMED, traffic_distribution="PreferClose", health_check_node_port=30000)
    assert [message.partition(" ")[0] for message in said([web], [WEB])] == [
        "trafficDistribution",
        "healthCheckNodePort",
    ]


def test_where_the_cluster_serves_none_nobody_expects_an_answer() -> None:
    snapshot = snapshot_of([service("a"), service("b")], [WEB])
    assert lint(replace(snapshot, cluster=replace(snapshot.cluster, services=None))) == ()
