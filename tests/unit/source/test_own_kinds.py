"""Cluster, Node, Workload and Namespace as values."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest

from reconciler.model.cluster import (
    AllowLocalhost,
    Cluster,
    Enforcement,
    NamedPort,
    Namespace,
    Node,
    Pool,
    StoreChoice,
    StoreKind,
    Workload,
)
from reconciler.source import manifests


def value(kind: str, metadata: str, spec: str = "{}") -> Any:
    version = "v1" if kind == "Namespace" else "plumbline/v1"
    found = manifests.read(f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n".encode())
    assert found.faults == ()
    return found.documents[0].content


def test_a_bare_cluster_has_the_defaults_of_the_model() -> None:
    found: Cluster = value("Cluster", "{name: demo}")
    assert found == Cluster("demo", found.origin)


def test_a_cluster_says_everything() -> None:
    found: Cluster = value(
        "Cluster",
        "{name: demo}",
        "{id: 3, store: {kind: embedded}, mtu: 1400, policy: {enforcement: always, allowLocalhost: policy, "
        "ipBlockMatchesWorkloads: false}, conntrack: {maxEntries: 2048, timeouts: {udp: 5}}, "
        "probes: [{name: p, from: a/b, to: 10.0.0.1, port: 80, expect: closed, timeout: 2}]}",
    )
    assert (found.id, found.mtu_bytes, found.ipblock_matches_workloads) == (3, 1400, False)
    assert (found.enforcement, found.allow_localhost) == (Enforcement.ALWAYS, AllowLocalhost.POLICY)
    assert (found.conntrack.max_entries, found.conntrack.timeouts.udp_s) == (2048, 5)
    [probe] = found.probes
    assert (probe.source, probe.host, probe.port, probe.expect_open, probe.timeout_s) == (
        "a/b",
        "10.0.0.1",
        80,
        False,
        2.0,
    )


def test_health_has_an_interval_and_a_threshold() -> None:
    found: Cluster = value("Cluster", "{name: demo}", "{health: {interval: 0.5, failures: 2}}")
    assert (found.health.interval_s, found.health.failures) == (0.5, 2)


def test_a_rollout_counts_hosts_or_shares_of_them() -> None:
    found: Cluster = value("Cluster", "{name: demo}", '{rollout: {waves: [1, "25%", 100%]}}')
    assert found.waves == (1, "25%", "100%")


@pytest.mark.parametrize("wave", ["0", "0%", "101%", "some", "-1", "1.5"])
def test_a_wave_is_a_number_or_a_share(wave: str) -> None:
    spec = f"{{rollout: {{waves: [{wave}]}}}}"
    found = manifests.read(f"apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {{name: d}}\nspec: {spec}\n".encode())
    assert "waves" in str(found.faults)


def test_a_cgroup_is_a_path_below_the_mount() -> None:
    asked = ("{name: web, namespace: shop}", "{node: alpha, netns: web, cgroup: %s}")
    assert [value("Workload", asked[0], asked[1] % path).cgroup for path in ("/a.slice/b/", "a", "null")] == [
        "a.slice/b",
        "a",
        None,
    ]
    root: Node = value("Node", "{name: alpha}", "{cgroup: /}")
    assert root.cgroup == ""


def test_a_workload_is_enforced_unless_it_says_so() -> None:
    asked = ("{name: web, namespace: shop}", "{node: alpha, netns: web, policyAuditMode: %s}")
    assert [value("Workload", asked[0], asked[1] % mode).audit for mode in ("true", "false", "null")] == [
        True,
        False,
        False,
    ]


def test_a_cluster_of_many_hosts_names_its_etcd_and_its_pools() -> None:
    found: Cluster = value(
        "Cluster",
        "{name: demo}",
        '{store: {kind: etcd, endpoints: ["etcd-1:2379", "[2001:db8::1]:2379"]}, '
        'pools: [{cidr: 10.44.0.0/16, nodePrefix: 24}, {cidr: "fd44::/96", nodePrefix: 112}]}',
    )
    assert found.store == StoreChoice(StoreKind.ETCD, ("etcd-1:2379", "[2001:db8::1]:2379"))
    assert found.pools == (Pool(ip_network("10.44.0.0/16"), 24), Pool(ip_network("fd44::/96"), 112))


def test_a_node_sorts_its_addresses_by_family() -> None:
    found: Node = value(
        "Node", "{name: alpha, labels: {rack: r1}}", '{cidrs: ["fd44::/112", 10.44.0.0/24], addresses: ["fd00::1"]}'
    )
    assert (found.cidr4, found.cidr6) == (ip_network("10.44.0.0/24"), ip_network("fd44::/112"))
    assert (found.address4, found.address6, found.labels) == (None, ip_address("fd00::1"), {"rack": "r1"})


def test_a_node_keeps_routes_rules_and_sysctls() -> None:
    found: Node = value(
        "Node",
        "{name: alpha}",
        "{routes: [{destination: 10.0.0.0/8, interface: eth0, gateway: 192.0.2.1}], "
        "rules: [{priority: 10, table: 100, from: 10.0.0.0/8}, {family: 6, priority: 10, table: 100, mark: 1}], "
        "sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.eth0/5.rp_filter: 0, net/core/somaxconn: '9'}, "
        "ansible: {ansible_host: a}}",
    )
    [route] = found.routes
    assert (route.gateway, route.table, route.priority) == (IPv4Address("192.0.2.1"), 254, 0)
    assert [(rule.family, rule.mark, rule.mark_mask) for rule in found.rules] == [(4, 0, 0), (6, 1, 0xFFFFFFFF)]
    assert found.sysctls == {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/eth0.5/rp_filter": "0",
        "net/core/somaxconn": "9",
    }
    assert found.ansible == {"ansible_host": "a"}


def test_a_workload_names_its_namespace_by_name_or_by_path() -> None:
    by_name: Workload = value("Workload", "{name: web}", "{node: alpha, netns: web}")
    by_path: Workload = value("Workload", "{name: web}", "{node: alpha, netns: /proc/1/ns/net}")
    assert (by_name.netns, by_path.netns, by_name.interface) == ("/run/netns/web", "/proc/1/ns/net", "eth0")
    assert by_name.reference == "default/web"


def test_a_namespace_has_one_path_however_it_is_written() -> None:
    for text in ("web", "/run/netns/web", "/var/run/netns/web"):
        assert value("Workload", "{name: web}", f"{{node: alpha, netns: {text}}}").netns == "/run/netns/web"


def test_a_workload_has_named_ports_and_fixed_addresses() -> None:
    found: Workload = value(
        "Workload",
        "{name: web, namespace: shop, labels: {app: web}}",
        "{node: alpha, netns: web, interface: net0, addresses: [10.44.0.9], "
        "ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}",
    )
    assert found.ports == (NamedPort("http", 80, 6), NamedPort("dns", 53, 17))
    assert (found.address4, found.address6, found.labels) == (ip_address("10.44.0.9"), None, {"app": "web"})


def test_a_namespace_carries_its_name_as_a_label() -> None:
    found: Namespace = value("Namespace", "{name: shop, labels: {team: a}}")
    assert found.labels == {"kubernetes.io/metadata.name": "shop", "team": "a"}
