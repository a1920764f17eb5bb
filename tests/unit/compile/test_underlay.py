"""What a host keeps for packets to other nodes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.compile.underlay import LAST_RESORT, UNREACHABLE
from reconciler.engine.rows import DictRows
from reconciler.errors import CompileError
from reconciler.model.cluster import JoinedCluster, Network, NetworkMode, Node, StoreChoice
from reconciler.model.datapath import AttachmentKey, AttachmentRow, Hook, TunnelRow
from reconciler.model.facts import Peer
from reconciler.model.identity import Reserved
from reconciler.model.network import AddressKey, Link, OverlayDevice, Route, RouteKey

from .lookup import identity_of
from .worlds import HERE, NODES, PROGRAMS, THERE, facts_of, origin, snapshot_of, workload

WEB = workload("web", {"app": "web"})
OVERLAY = {"from_overlay": "digest-in", "to_overlay": "digest-out", "from_netdev": "x", "to_netdev": "y"}
VXLAN = Network(NetworkMode.VXLAN)
OWN = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
THEIRS = IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2")
CIDR4, CIDR6 = IPv4Network("10.44.2.0/24"), IPv6Network("fd44:2::/112")


def peer(address4: IPv4Address | None = THEIRS[0], address6: IPv6Address | None = THEIRS[1]) -> Peer:
    return Peer(THERE, origin("Node", THERE), address4, address6, CIDR4, CIDR6)


def compiled(network: Network, other: Peer | None = None, mtu_bytes: int = 0, **own: object) -> Desired:
    """`own`: fields of this node that are other than usual."""
    home: Node = replace(NODES[HERE], address4=OWN[0], address6=OWN[1], **own)  # type: ignore[arg-type]
    snapshot = snapshot_of([WEB])
    cluster = replace(snapshot.cluster, network=network, mtu_bytes=mtu_bytes)
    snapshot = replace(snapshot, cluster=cluster, nodes={**snapshot.nodes, HERE: home})
    facts = replace(facts_of([WEB]), peers={THERE: other or peer()}, underlay={4: "eth0", 6: "eth1"})
    return compile_host(snapshot, facts, CompileCache(), {**PROGRAMS, **OVERLAY})


def rows(desired: Desired, table: str) -> dict[object, object]:
    found = desired.tables[table]
    assert isinstance(found, DictRows)
    return dict(found.rows)


def test_an_overlay_has_a_device_a_tunnel_and_a_route_for_each_cidr() -> None:
    desired = compiled(VXLAN)
    device = rows(desired, "overlays")["plumb_vxlan"]
    assert isinstance(device, OverlayDevice)
    assert (device.kind, device.mtu_bytes, device.port) == ("vxlan", 1450, 8472)
    tunnels = rows(desired, "tunnels")
    assert tunnels[CIDR4] == tunnels[CIDR6] == TunnelRow("plumb_vxlan", THEIRS[0], OWN[0])
    assert rows(desired, "routes")[RouteKey("", CIDR4, 254, 0)] == Route("plumb_vxlan", source=IPv4Address("10.44.1.1"))


def test_a_tunnel_is_for_identities_of_its_cluster() -> None:
    theirs = JoinedCluster("west", 8, StoreChoice())
    snapshot = snapshot_of([WEB], id=7, network=VXLAN, clusters=(theirs,))
    west = replace(peer(), name="west/gamma", cidr4=IPv4Network("10.45.2.0/24"), cidr6=None)
    facts = replace(facts_of([WEB]), peers={THERE: peer(), west.name: west})
    found = rows(compile_host(snapshot, facts, CompileCache(), {**PROGRAMS, **OVERLAY}), "tunnels")
    assert {row.cluster for key, row in found.items() if isinstance(row, TunnelRow) and key == west.cidr4} == {8}
    assert {row.cluster for key, row in found.items() if isinstance(row, TunnelRow) and key != west.cidr4} == {7}


@pytest.mark.parametrize("network", [VXLAN, Network(direct_routes=True)])
@pytest.mark.parametrize("order", [1, -1])
def test_a_cidr_that_a_joined_cluster_has_too_is_refused_in_words(network: Network, order: int) -> None:
    west = replace(peer(), name="west/gamma", cidr6=None)
    peers = {one.name: one for one in (west, peer())[::order]}
    facts = replace(facts_of([WEB]), peers=peers, underlay={4: "eth0", 6: "eth1"})
    snapshot = snapshot_of([WEB], network=network)
    with pytest.raises(CompileError) as refused:
        compile_host(snapshot, facts, CompileCache(), {**PROGRAMS, **OVERLAY})
    said = f"cidr {CIDR4} of node {THERE} is that of node gamma of the joined cluster west too"
    assert str(refused.value) == f"{peer().origin}: {said}"
    assert "take west out of `clusters`" in refused.value.remedy


def test_both_directions_of_the_device_run_our_programs() -> None:
    attachments = rows(compiled(VXLAN), "attachments")
    assert attachments[AttachmentKey("plumb_vxlan", Hook.INGRESS)] == AttachmentRow("from_overlay", "digest-in")
    assert attachments[AttachmentKey("plumb_vxlan", Hook.EGRESS)] == AttachmentRow("to_overlay", "digest-out")


def test_a_host_has_the_first_address_of_its_cidr_and_so_have_the_others() -> None:
    desired = compiled(VXLAN)
    own = IPv4Address("10.44.1.1")
    assert AddressKey("", "plumb_vxlan", IPv4Interface("10.44.1.1/32")) in rows(desired, "addresses")
    assert rows(desired, "tunnels")[IPv4Network(own)] == TunnelRow("plumb_vxlan", OWN[0], OWN[0])
    assert identity_of(desired, own) == Reserved.HOST
    assert identity_of(desired, IPv4Address("10.44.2.1")) == Reserved.REMOTE_NODE


def test_the_family_of_the_outer_packets_is_one_that_both_nodes_have() -> None:
    six = TunnelRow("plumb_vxlan", THEIRS[1], OWN[1])
    assert rows(compiled(VXLAN, peer(address4=None)), "tunnels")[CIDR4] == six
    assert rows(compiled(replace(VXLAN, underlay=6)), "tunnels")[CIDR4] == six


def test_two_nodes_without_a_common_family_are_an_error() -> None:
    with pytest.raises(CompileError, match=r"node/.*: no tunnel between .* over IPv4: they have no addresses of one"):
        compiled(replace(VXLAN, underlay=4), peer(address4=None))


@pytest.mark.parametrize("network", [replace(VXLAN, underlay=4), Network(direct_routes=True)])
def test_a_node_of_a_joined_cluster_without_a_common_family_is_left_out(network: Network) -> None:
    theirs = JoinedCluster("west", 8, StoreChoice())
    home: Node = replace(NODES[HERE], address4=OWN[0])
    snapshot = snapshot_of([WEB], network=network, clusters=(theirs,))
    snapshot = replace(snapshot, nodes={**snapshot.nodes, HERE: home})
    west = replace(peer(address4=None), name="west/gamma", cidr4=IPv4Network("10.45.2.0/24"), cidr6=None)
    facts = replace(facts_of([WEB]), peers={THERE: peer(), west.name: west}, underlay={4: "eth0"})
    if network.direct_routes:
        facts = replace(facts, peers={west.name: west})
    desired = compile_host(snapshot, facts, CompileCache(), {**PROGRAMS, **OVERLAY})
    assert west.cidr4 not in rows(desired, "tunnels")
    routes = rows(desired, "routes")
    assert west.cidr4 is not None
    assert routes[RouteKey("", west.cidr4, 254, LAST_RESORT)] == UNREACHABLE
    assert RouteKey("", west.cidr4, 254, 0) not in routes
    assert identity_of(desired, IPv4Address("10.45.2.9")) == Reserved.UNMANAGED
    (warning,) = [one.message for one in desired.warnings if "west/gamma" in one.message]
    assert "left out" in warning


@pytest.mark.parametrize(
    ("network", "given", "expected"),
    [(VXLAN, 0, 1450), (replace(VXLAN, underlay=6), 0, 1430), (VXLAN, 8950, 8950), (Network(), 0, 1500)],
)
def test_the_mtu_of_workloads_follows_the_overlay_unless_it_is_given(
    network: Network, given: int, expected: int
) -> None:
    (link,) = rows(compiled(network, mtu_bytes=given), "links").values()
    assert isinstance(link, Link)
    assert link.mtu_bytes == expected


def test_direct_routes_lead_over_the_address_of_the_same_family() -> None:
    routes = rows(compiled(Network(direct_routes=True)), "routes")
    assert routes[RouteKey("", CIDR4, 254, 0)] == Route("eth0", THEIRS[0])
    assert routes[RouteKey("", CIDR6, 254, 0)] == Route("eth1", THEIRS[1])


def test_ipv4_has_a_direct_route_over_ipv6_where_there_is_nothing_else() -> None:
    routes = rows(compiled(Network(direct_routes=True), peer(address4=None)), "routes")
    assert routes[RouteKey("", CIDR4, 254, 0)] == Route("eth1", THEIRS[1])


def test_a_direct_route_that_cannot_be_is_an_error() -> None:
    with pytest.raises(CompileError, match="no direct route to fd44:2::/112"):
        compiled(Network(direct_routes=True), peer(address6=None))


def test_without_an_overlay_there_is_nothing_of_it() -> None:
    desired = compiled(Network())
    assert rows(desired, "overlays") == rows(desired, "tunnels") == {}
