"""How load is balanced, as manifests say it: the Cluster's settings, annotations, and claims that clash."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from reconciler.errors import ManifestError
from reconciler.model.balancing import Algorithm
from reconciler.model.cluster import Cluster, DirectReturn, Services, Workload
from reconciler.model.service import AllUnhealthy, EndpointSlice, HealthCheck, HealthKind, Service
from reconciler.source import manifests
from reconciler.source.loading import load_directory

CLUSTER = "apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\nspec: {services: {%s}}\n"
CONNECTED = CLUSTER.replace("{%s}", "{directReturn: %s}, network: {%s}")
NODE = (
    "apiVersion: plumbline/v1\nkind: Node\nmetadata: {name: alpha}\n"
    "spec: {cidrs: [10.1.0.0/24], addresses: [192.0.2.1]}\n"
)


def service(annotations: str = "{}", name: str = "web", spec: str = "ports: [{port: 80}]") -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {annotations}}}\nspec: {{{spec}}}\n"


def read(text: str) -> object:
    found = manifests.read(text.encode())
    assert found.faults == ()
    return found.documents[0].content


def fault(text: str) -> str:
    (one,) = manifests.read(text.encode()).faults
    return one.message


def refusals(directory: Path, *documents: str) -> list[str]:
    (directory / "all.yaml").write_text("---\n".join(documents))
    with pytest.raises(ManifestError) as caught:
        load_directory(directory)
    return [str(fault) for fault in caught.value.faults]


def test_a_cluster_serves_services_only_if_it_says_so() -> None:
    plain = read("apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\n")
    serving = read(CLUSTER % "cidrs: [10.96.0.0/16], algorithm: random")
    assert isinstance(plain, Cluster)
    assert isinstance(serving, Cluster)
    assert plain.services is None
    assert serving.services == Services((ip_network("10.96.0.0/16"),), algorithm=Algorithm.RANDOM)


@pytest.mark.parametrize("way", DirectReturn)
def test_a_cluster_says_how_answers_return(way: DirectReturn) -> None:
    found = read(CLUSTER % f"directReturn: {way.value}")
    assert isinstance(found, Cluster)
    assert found.services == Services(direct_return=way)


@pytest.mark.parametrize("way", ["option", "ipip"])
@pytest.mark.parametrize("mode", ["vxlan", "geneve"])
def test_what_no_tunnel_takes_is_refused_in_an_overlay(tmp_path: Path, way: str, mode: str) -> None:
    said = refusals(tmp_path, CONNECTED % (way, f"mode: {mode}"), NODE)
    assert said == [
        f"all.yaml:4:33: directReturn: {way} needs network.mode: native; with {mode} it can be none or geneve"
    ]


@pytest.mark.parametrize("network", ["mode: vxlan", "mode: geneve", "mode: geneve, port: 6081", "mode: native"])
def test_geneve_returns_directly_in_every_mode(network: str) -> None:
    found = read(CONNECTED % ("geneve", network))
    assert isinstance(found, Cluster)


def test_two_kinds_of_wrapped_packets_have_two_ports() -> None:
    said = fault(CONNECTED % ("geneve", "mode: vxlan, port: 6081"))
    assert said == (
        "directReturn: geneve needs UDP port 6081, which network.port gives to vxlan: any other network.port is allowed"
    )


def test_annotations_say_how_a_service_is_balanced() -> None:
    check = "'{type: http, path: /up, port: 8080, interval: 2, timeout: 0.5, healthy: 1, unhealthy: 3}'"
    found = read(
        service(
            f"{{plumbline/algorithm: random, plumbline/all-unhealthy: open, plumbline/health-check: {check}}}",
        )
    )
    assert isinstance(found, Service)
    assert (found.algorithm, found.all_unhealthy) == (Algorithm.RANDOM, AllUnhealthy.OPEN)
    assert found.health == HealthCheck(HealthKind.HTTP, "/up", 8080, 2.0, 0.5, 1, 3)


def test_a_slice_and_a_workload_have_a_weight() -> None:
    head = "metadata: {name: a, annotations: {plumbline/weight: '7'}}\n"
    slice_ = read(f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{head}addressType: IPv4\nendpoints: []\n")
    workload = read(f"apiVersion: plumbline/v1\nkind: Workload\n{head}spec: {{node: alpha, netns: a}}\n")
    assert isinstance(slice_, EndpointSlice)
    assert isinstance(workload, Workload)
    assert (slice_.weight, workload.weight) == (7, 7)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("{plumbline/algorithm: least}", 'plumbline/algorithm "least" must be maglev or random'),
        ("{plumbline/all-unhealthy: close}", 'plumbline/all-unhealthy "close" must be refuse or open'),
        ("{plumbline/health-check: tcp}", "must be a mapping: {type: http, path: /healthz, interval: 5}"),
        ("{plumbline/health-check: '{kind: tcp}'}", 'has no field "kind": known here: type, path, port'),
        ("{plumbline/health-check: '{type: udp}'}", "type must be tcp or http"),
        ("{plumbline/health-check: '{port: 0}'}", "port must be a whole number from 1 to 65535"),
        ("{plumbline/health-check: '{interval: 1, timeout: 2}'}", "a timeout of 2 s is longer than 1 s, its interval"),
        ("{plumbline/health-check: '{path: /up}'}", "a path is for type: http"),
    ],
)
def test_what_an_annotation_cannot_mean_is_refused(annotations: str, message: str) -> None:
    assert message in fault(service(annotations))


def test_an_address_has_one_service(tmp_path: Path) -> None:
    one, two = (service(name=name, spec="clusterIP: 10.96.0.9, ports: [{port: 80}]") for name in ("one", "two"))
    [said] = refusals(tmp_path, CLUSTER % "", NODE, one, two)
    assert "address 10.96.0.9 is already that of Service default/one" in said


def test_two_services_share_an_external_address_but_not_a_port_of_it(tmp_path: Path) -> None:
    spec = "externalIPs: [198.51.100.7], ports: [{port: %d}]"
    three = [service(name=f"s{number}", spec=spec % port) for number, port in enumerate((80, 443, 80))]
    [said] = refusals(tmp_path, CLUSTER % "", NODE, *three)
    assert "port 80/TCP of 198.51.100.7 is already that of Service default/s0 at all.yaml" in said


def test_a_node_port_has_one_service(tmp_path: Path) -> None:
    spec = "type: NodePort, ports: [{port: 80, nodePort: 30080}]"
    [said] = refusals(tmp_path, CLUSTER % "", NODE, service(name="a", spec=spec), service(name="b", spec=spec))
    assert "node port 30080/TCP is already that of Service default/a" in said


def test_a_cluster_address_is_no_workloads(tmp_path: Path) -> None:
    spec = "clusterIP: 10.1.0.9, ports: [{port: 80}]"
    [said] = refusals(tmp_path, CLUSTER % "", NODE, service(spec=spec))
    assert "10.1.0.9 is inside 10.1.0.0/24, for workloads of Node alpha" in said


def test_a_cluster_address_is_one_that_the_cluster_gives(tmp_path: Path) -> None:
    cluster = CLUSTER % "cidrs: [10.96.0.0/16]"
    spec = "clusterIP: %s, ports: [{port: 80}]"
    asked = ("10.97.0.9", "10.96.0.0", "10.96.255.255")
    services = [service(name=f"s{at}", spec=spec % one) for at, one in enumerate(asked)]
    assert refusals(tmp_path, cluster, NODE, *services) == [
        "all.yaml:14:19: clusterIP 10.97.0.9 is not inside 10.96.0.0/16, of services.cidrs of the Cluster",
        "all.yaml:19:19: clusterIP 10.96.0.0 is the first or last of 10.96.0.0/16, which no service can have",
        "all.yaml:24:19: clusterIP 10.96.255.255 is the first or last of 10.96.0.0/16, which no service can have",
    ]


def test_a_cluster_address_of_a_family_that_the_cluster_gives_none_of_is_taken_as_it_is(tmp_path: Path) -> None:
    spec = "clusterIP: 'fd96::9', ports: [{port: 80}]"
    (tmp_path / "all.yaml").write_text("---\n".join([CLUSTER % "cidrs: [10.96.0.0/16]", NODE, service(spec=spec)]))
    assert list(load_directory(tmp_path).services) == ["default/web"]


def test_a_node_port_is_among_those_of_the_cluster(tmp_path: Path) -> None:
    spec = "type: NodePort, ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 8472}]"
    assert refusals(tmp_path, CLUSTER % "", NODE, service(spec=spec)) == [
        "all.yaml:14:100: nodePort 8472 is not among services.nodePorts of the Cluster: 30000 to 32767"
    ]


@pytest.mark.parametrize("field", ["externalIPs: [%s]", "type: LoadBalancer, loadBalancerIP: %s"])
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("10.1.0.9", "10.1.0.9 is inside 10.1.0.0/24, for workloads of Node alpha at all.yaml:6"),
        ("10.2.3.4", "10.2.3.4 is inside 10.2.0.0/16, for workloads of the pools of the Cluster"),
        ("192.0.2.5", "port 2379/TCP of 192.0.2.5 is a server of the store, which hosts must reach"),
        ("'2001:db8::5'", "port 2379/TCP of 2001:db8::5 is a server of the store, which hosts must reach"),
        ("10.96.0.9", "port 2379/TCP of 10.96.0.9 is already that of Service default/inside at all.yaml:11"),
    ],
)
def test_an_address_for_the_outside_is_nobody_elses(tmp_path: Path, field: str, address: str, message: str) -> None:
    store = "store: {kind: etcd, endpoints: ['192.0.2.5:2379', '[2001:db8::5]:2379', 'etcd.example.net:2379']}"
    pools = "pools: [{cidr: 10.2.0.0/16, nodePrefix: 24}]"
    cluster = (CLUSTER % "cidrs: [10.96.0.0/16]").replace("spec: {", f"spec: {{{store}, {pools}, ")
    inside = service(name="inside", spec="clusterIP: 10.96.0.9, ports: [{port: 2379}]")
    [said] = refusals(tmp_path, cluster, NODE, inside, service(spec=f"{field % address}, ports: [{{port: 2379}}]"))
    assert message in said


@pytest.mark.parametrize("spec", ["externalIPs: [192.0.2.1]", "externalIPs: [192.0.2.5]", "externalIPs: [10.96.0.9]"])
def test_services_share_addresses_with_nodes_servers_and_others_at_other_ports(tmp_path: Path, spec: str) -> None:
    store = "store: {kind: etcd, endpoints: ['192.0.2.5:2379']}"
    cluster = (CLUSTER % "cidrs: [10.96.0.0/16]").replace("spec: {", f"spec: {{{store}, ")
    inside = service(name="inside", spec="clusterIP: 10.96.0.9, ports: [{port: 80}]")
    outside = service(name="outside", spec=f"{spec}, ports: [{{port: 443}}]")
    (tmp_path / "all.yaml").write_text("---\n".join([cluster, NODE, inside, outside]))
    assert len(load_directory(tmp_path).services) == 2


def test_a_port_of_a_nodes_address_is_not_also_a_node_port(tmp_path: Path) -> None:
    node_port = service(name="a", spec="type: NodePort, ports: [{port: 80, nodePort: 30080}]")
    external = service(name="b", spec="externalIPs: [192.0.2.1], ports: [{port: 30080}]")
    [said] = refusals(tmp_path, CLUSTER % "", NODE, external, node_port)
    assert "port 30080/TCP of 192.0.2.1 is already that of Service default/a at all.yaml:16" in said
    assert "as its nodePort at Node alpha" in said


def test_a_server_of_the_store_keeps_its_port_at_a_nodes_address(tmp_path: Path) -> None:
    store = "store: {kind: etcd, endpoints: ['192.0.2.1:30079']}"
    cluster = (CLUSTER % "").replace("spec: {", f"spec: {{{store}, ")
    [said] = refusals(tmp_path, cluster, NODE)
    assert "services: nodePorts 30000-32767 hold the port of 192.0.2.1:30079, a server of the store" in said


def test_what_addresses_of_services_come_from_is_nobody_elses(tmp_path: Path) -> None:
    said = refusals(tmp_path, CLUSTER % "cidrs: [10.1.0.0/16]", NODE)
    assert "services: 10.1.0.0/16 overlaps 10.1.0.0/24 of Node alpha" in said[0]


def test_nothing_clashes_where_services_are_not_served(tmp_path: Path) -> None:
    one, two = (service(name=name, spec="clusterIP: 10.96.0.9, ports: [{port: 80}]") for name in ("one", "two"))
    plain = "apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\n"
    (tmp_path / "all.yaml").write_text("---\n".join([plain, NODE, one, two]))
    found = load_directory(tmp_path)
    assert len(found.services) == 2
    assert [one.message.partition(":")[0] for one in found.warnings] == ["nothing answers at the addresses of Services"]
