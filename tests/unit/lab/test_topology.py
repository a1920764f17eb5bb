"""What a lab would consist of, and what stands in its way."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.lab.places import namespace
from reconciler.lab.registry import Lab
from reconciler.lab.topology import clashes, topology
from reconciler.model.cluster import Network, NetworkMode, StoreChoice, StoreKind
from reconciler.model.snapshot import Snapshot
from reconciler.source.loading import load_directory

QUICKSTART = Path(__file__).resolve().parents[3] / "examples" / "quickstart"
EMPTY = Lab("lab", "/srv/policies.git", "refs/heads/main")


def _with_nodes(*names: str, **asked: IPv4Address) -> Snapshot:
    snapshot = load_directory(QUICKSTART)
    alpha = snapshot.nodes["alpha"]
    return replace(snapshot, nodes={name: replace(alpha, name=name, address4=asked.get(name)) for name in names})


def test_hosts_are_named_after_the_lab_and_get_addresses_of_both_families() -> None:
    host = topology(EMPTY, _with_nodes("alpha")).hosts[0]
    assert host.namespace == "/run/netns/lab-alpha"
    assert host.addresses == (IPv4Address("172.30.0.1"), IPv6Address("fd30::1"))


def test_an_address_that_a_node_asks_for_is_given_to_nobody_else() -> None:
    hosts = topology(EMPTY, _with_nodes("alpha", "beta", beta=IPv4Address("172.30.0.1"))).hosts
    assert [str(host.addresses[0]) for host in hosts] == ["172.30.0.2", "172.30.0.1"]


def test_a_host_keeps_its_address_when_others_come() -> None:
    lab = replace(EMPTY, addresses={"beta": ["172.30.0.1", "fd30::1"]})
    hosts = topology(lab, _with_nodes("alpha", "beta")).hosts
    assert [str(host.addresses[0]) for host in hosts] == ["172.30.0.2", "172.30.0.1"]


def test_workloads_have_the_namespaces_of_their_manifests() -> None:
    planned = topology(EMPTY, load_directory(QUICKSTART))
    assert planned.workloads["default/web"] == "/run/netns/web"


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "-a", "a" * 60])
def test_a_name_that_would_not_do_for_namespaces_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a lab's name"):
        topology(replace(EMPTY, name=name), load_directory(QUICKSTART))


def test_a_commit_without_nodes_makes_no_lab() -> None:
    with pytest.raises(UsageError, match="no Node"):
        topology(EMPTY, _with_nodes())


def test_two_labs_must_not_share_a_node_or_a_workloads_namespace() -> None:
    planned = topology(EMPTY, load_directory(QUICKSTART))
    other = Lab(
        "other", "/x", "refs/heads/main", {"alpha": "/run/netns/other-alpha"}, workloads={"a/b": "/run/netns/web"}
    )
    assert clashes(planned, [other]) == [
        "node alpha is in lab other",
        "/run/netns/web (default/web) is in lab other",
    ]


def test_a_place_is_a_node_a_workload_by_either_name_or_the_outside() -> None:
    lab = replace(
        EMPTY,
        hosts={"alpha": "/run/netns/lab-alpha"},
        workloads={"default/web": "/run/netns/web"},
        namespaces=["/run/netns/lab_underlay"],
    )
    assert namespace(lab, "alpha") == "/run/netns/lab-alpha"
    assert namespace(lab, "web") == namespace(lab, "default/web") == "/run/netns/web"
    assert namespace(lab, "outside") == "/run/netns/lab_underlay"


def test_a_place_that_is_none_or_several_is_refused() -> None:
    lab = replace(EMPTY, workloads={"a/web": "/run/netns/a", "b/web": "/run/netns/b"})
    with pytest.raises(UsageError, match="more than one place"):
        namespace(lab, "web")
    with pytest.raises(UsageError, match="no nowhere"):
        namespace(lab, "nowhere")


def test_the_underlay_does_not_route_workloads_of_an_overlay() -> None:
    native = _with_nodes("alpha")
    overlay = replace(native, cluster=replace(native.cluster, network=Network(NetworkMode.VXLAN)))
    assert topology(EMPTY, native).hosts[0].cidrs
    assert topology(EMPTY, overlay).hosts[0].cidrs == ()


def test_the_etcd_is_where_the_cluster_says_and_no_host_gets_its_address() -> None:
    planned = topology(EMPTY, _with_etcd("172.30.0.1:2379", "[fd30::1]:2380"))
    assert [server.client for server in planned.etcd] == ["http://172.30.0.1:2379", "http://[fd30::1]:2380"]
    assert planned.hosts[0].addresses == (IPv4Address("172.30.0.2"), IPv6Address("fd30::2"))


def test_an_etcd_that_only_has_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be at etcd\.example:2379: an address is needed"):
        topology(EMPTY, _with_etcd("etcd.example:2379"))


def _with_etcd(*endpoints: str) -> Snapshot:
    snapshot = _with_nodes("alpha")
    return replace(snapshot, cluster=replace(snapshot.cluster, store=StoreChoice(StoreKind.ETCD, endpoints)))
