"""Services and EndpointSlices as values, and policies that name services."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from reconciler.model.policy import PolicyRule, ServicePeer
from reconciler.model.selector import Selector, label_is
from reconciler.model.service import (
    EndpointSlice,
    FamilyPolicy,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
    TrafficPolicy,
)
from reconciler.source import manifests, schema
from reconciler.source.loading import Cache, load_directory

from .policy_repository import CLUSTER

PORTS = "ports: [{port: 80}]"


def service(spec: str, metadata: str = "{name: web, namespace: shop}") -> Service:
    found = manifests.read(f"apiVersion: v1\nkind: Service\nmetadata: {metadata}\nspec: {{{spec}}}\n".encode())
    assert found.faults == ()
    content = found.documents[0].content
    assert isinstance(content, Service)
    return content


def example(kind: str, number: int) -> Any:
    found = manifests.read(json.dumps(schema.kinds()[kind].schema["examples"][number]).encode(), is_json=True)
    return found.documents[0].content


def warnings(text: str) -> list[str]:
    found = manifests.read(text.encode())
    assert found.faults == ()
    return [warning.message for warning in found.warnings]


def peers(entries: str) -> tuple[object, ...] | None:
    found = manifests.read(
        b"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: web, namespace: shop}\n"
        b"spec: {endpointSelector: {}, egress: [{toServices: %s}]}\n" % entries.encode()
    )
    assert found.faults == ()
    content = found.documents[0].content
    assert isinstance(content, tuple)
    [rule] = content
    assert isinstance(rule, PolicyRule)
    return rule.egress[0].peers


def test_a_service_has_the_defaults_of_kubernetes() -> None:
    found = service(PORTS)
    assert found == Service("shop", "web", found.origin, ports=(ServicePort("", 6, 80, 80),))


def test_a_service_says_everything() -> None:
    found: Service = example("Service", 1)
    assert (found.type, found.selector, found.headless) == (ServiceType.LOAD_BALANCER, {"app": "web"}, False)
    assert found.ports == (
        ServicePort("http", 6, 80, "http", 30080),
        ServicePort("dns", 17, 53, 5353, app_protocol="example.org/dns"),
    )
    assert found.cluster_ips == (ip_address("10.96.0.10"), ip_address("fd96::10"))
    assert (found.families, found.family_policy) == ((4, 6), FamilyPolicy.REQUIRE_DUAL)
    assert (found.external_ips, found.load_balancer_ip) == ((ip_address("198.51.100.7"),), ip_address("198.51.100.8"))
    assert (found.load_balancer_class, found.source_ranges) == ("example.org/edge", (ip_network("203.0.113.0/24"),))
    assert (found.external_traffic, found.internal_traffic) == (TrafficPolicy.LOCAL, TrafficPolicy.CLUSTER)
    assert (found.affinity_s, found.health_check_node_port, found.traffic_distribution) == (600, 30999, "PreferClose")


@pytest.mark.parametrize("spec", ["clusterIP: None", 'clusterIPs: ["None"]', "clusterIP: None, clusterIPs: [None]"])
def test_a_headless_service_has_no_address_and_may_have_no_ports(spec: str) -> None:
    assert (service(spec).headless, service(spec).cluster_ips) == (True, ())


def test_affinity_lasts_three_hours_unless_told_otherwise() -> None:
    assert service(f"{PORTS}, sessionAffinity: ClientIP").affinity_s == 10800


def test_a_service_of_an_external_name_has_nothing_else() -> None:
    assert service("type: ExternalName, externalName: mail.example.org").external_name == "mail.example.org"


def test_a_slice_says_everything() -> None:
    found: EndpointSlice = example("EndpointSlice", 0)
    assert (found.reference, found.service) == ("shop/ledger-1", "ledger")
    assert found.ports == (SlicePort("", 6, 8443),)
    assert found.endpoints == (
        SliceEndpoint((ip_address("203.0.113.20"),)),
        SliceEndpoint((ip_address("203.0.113.21"),), False, True, True, "b", "edge-1", "z1", "Host/b"),
    )


def test_an_endpoint_that_is_not_ready_does_not_serve_unless_it_says_so() -> None:
    text = (
        b"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\n"
        b"endpoints: [{addresses: [203.0.113.1], conditions: {ready: false}}]\n"
    )
    [document] = manifests.read(text).documents
    assert isinstance(document.content, EndpointSlice)
    assert document.content.endpoints[0].serving is False


def test_a_slice_of_nobody_or_of_names_is_warned_of() -> None:
    head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n"
    assert len(warnings(f"{head}addressType: FQDN\nendpoints: [{{addresses: [example.org]}}]\n")) == 2


@pytest.mark.parametrize(
    ("entry", "peer"),
    [
        ("{k8sService: {serviceName: db, namespace: data}}", ServicePeer("data", "db")),
        ("{k8sService: {serviceName: db}}", ServicePeer("", "db")),
        (
            "{k8sServiceSelector: {selector: {matchLabels: {tier: data}}, namespace: data}}",
            ServicePeer("data", selector=Selector((label_is("any", "tier", "data"),))),
        ),
        (
            "{k8sServiceSelector: {selector: {}}, k8sService: {serviceName: db}}",
            ServicePeer("", selector=Selector()),
        ),
    ],
)
def test_21_a_policy_names_services_or_selects_them(entry: str, peer: ServicePeer) -> None:
    assert peers(f"[{entry}]") == (peer,)


def test_21_an_entry_that_names_no_service_is_nobody() -> None:
    assert peers("[{}]") == ()


def test_services_and_slices_are_in_the_snapshot_and_survive_the_disk(tmp_path: Path) -> None:
    text = "---\n".join(
        json.dumps(schema.kinds()[kind].schema["examples"][number]) + "\n"
        for kind, number in (("Service", 1), ("Service", 4), ("EndpointSlice", 0))
    )
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "services.yaml").write_text(f"{CLUSTER}---\n{text}")
    first, again = (load_directory(tmp_path / "r", Cache(tmp_path / "cache")) for _ in range(2))
    assert first == again
    assert list(first.services) == ["shop/web", "shop/ledger"]
    assert [one.origin.path for one in first.slices.values()] == ["services.yaml"]
    assert "shop" in first.namespaces


def test_a_slice_of_a_service_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    slice_text = json.dumps(schema.kinds()["EndpointSlice"].schema["examples"][1])
    (tmp_path / "a.yaml").write_text(f"{CLUSTER}---\n{slice_text}\n")
    said = [str(one) for one in load_directory(tmp_path).warnings]
    assert any('warning: there is no Service "shop/ledger"' in one for one in said)
