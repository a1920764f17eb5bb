"""Devices, routes and the ipcache of one host."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

import pytest

from reconciler.compile.budget import Budget
from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.engine.rows import Columns, DictRows
from reconciler.errors import CompileError
from reconciler.model.cluster import StaticRoute, StaticRule
from reconciler.model.datapath import GATEWAY_MAC, AttachmentKey, AttachmentRow, EndpointRow, Hook, IpcacheFlag
from reconciler.model.identity import FIRST_LOCAL, Reserved
from reconciler.model.network import (
    Address,
    AddressKey,
    Link,
    Neighbour,
    NeighbourKey,
    Route,
    RouteKey,
    Rule,
    RuleKey,
    Sysctl,
    SysctlKey,
    VethPeer,
)
from reconciler.model.policy import CidrPeer

from .lookup import identity_of
from .worlds import (
    HERE,
    HOST_ADDRESS,
    NODES,
    PROGRAMS,
    THERE,
    app,
    cidr,
    compiled,
    facts_of,
    item,
    origin,
    rule,
    snapshot_of,
    workload,
)

WEB = workload("web", {"app": "web"})
REMOTE = workload("remote", {"app": "remote"}, THERE)
NETNS, MAC = "/run/netns/web", "02:00:00:00:00:02"
NOWHERE: dict[object, object] = {
    RouteKey("", ip_network(own), 254, 1 << 16): Route("", kind="unreachable")
    for own in ("10.44.1.0/24", "fd44:1::/112")
}
V4, V6 = IPv4Address("10.44.1.2"), IPv6Address("fd44:1::2")


def rows(desired: Desired, table: str) -> dict[object, object]:
    found = desired.tables[table]
    assert isinstance(found, DictRows)
    return dict(found.rows)


def cached(desired: Desired, address: IPv4Address | IPv6Address) -> tuple[int, IpcacheFlag]:
    cache = desired.tables["ipcache"]
    assert isinstance(cache, Columns)
    value = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    exact = (
        (cache.keys["high"] == value >> 64) & (cache.keys["low"] == value & (1 << 64) - 1) & (cache.keys["bits"] == 128)
    )
    (found,) = cache.values[exact]
    return int(found["identity"]), IpcacheFlag(int(found["flags"]))


def test_a_workload_gets_its_link_and_its_two_addresses() -> None:
    desired = compiled([WEB])
    assert rows(desired, "links") == {"pl2": Link(GATEWAY_MAC, 1500, VethPeer(NETNS, "eth0", MAC))}
    assert rows(desired, "addresses") == {
        AddressKey(NETNS, "eth0", IPv4Interface("10.44.1.2/32")): Address(),
        AddressKey(NETNS, "eth0", IPv6Interface("fd44:1::2/128")): Address(),
    }
    assert rows(desired, "neighbours") == {NeighbourKey("", "pl2", one): Neighbour(MAC) for one in (V4, V6)}
    assert rows(desired, "endpoints") == {one: EndpointRow("pl2", MAC, identity=256) for one in (V4, V6)}


def test_a_workload_sees_one_gateway_and_the_host_a_route_of_full_length() -> None:
    gateway = IPv4Network("169.254.1.1/32")
    assert rows(compiled([WEB]), "routes") == {
        RouteKey(NETNS, gateway, 254, 0): Route("eth0"),
        RouteKey(NETNS, IPv4Network("0.0.0.0/0"), 254, 0): Route("eth0", gateway.network_address, onlink=True),
        RouteKey(NETNS, IPv6Network("::/0"), 254, 0): Route("eth0", IPv6Address("fe80::1"), onlink=True),
        RouteKey("", IPv4Network("10.44.1.2/32"), 254, 0): Route("pl2"),
        RouteKey("", IPv6Network("fd44:1::2/128"), 254, 0): Route("pl2"),
        **NOWHERE,
    }


def test_both_directions_of_a_link_run_our_programs() -> None:
    assert rows(compiled([WEB]), "attachments") == {
        AttachmentKey("pl2", Hook.INGRESS): AttachmentRow("from_workload", "digest-from"),
        AttachmentKey("pl2", Hook.EGRESS): AttachmentRow("to_workload", "digest-to"),
    }


def test_a_program_that_is_not_built_is_an_error() -> None:
    with pytest.raises(CompileError, match="to_workload is not built"):
        compile_host(snapshot_of([WEB]), facts_of([WEB]), CompileCache(), {"from_workload": "x"})


def test_every_row_of_a_workload_names_its_document() -> None:
    desired = compiled([WEB])
    for table in ("links", "carriers", "addresses", "routes", "neighbours", "endpoints", "attachments"):
        found = desired.tables[table]
        assert isinstance(found, DictRows)
        assert {found.origins[key] for key in found.rows if key not in NOWHERE} == {origin("Workload", "web")}
        assert found.origins.keys() == found.rows.keys()


def test_workloads_of_other_nodes_have_no_devices_here() -> None:
    desired = compiled([REMOTE])
    assert not any(rows(desired, table) for table in ("links", "addresses", "endpoints", "attachments"))
    assert rows(desired, "routes") == NOWHERE


def test_the_host_forwards_and_the_manifest_has_the_last_word() -> None:
    home = replace(NODES[HERE], sysctls={"net.ipv4.ip_forward": "0", "net/core/somaxconn": "1024"})
    snapshot = replace(snapshot_of([]), nodes={HERE: home})
    found = rows(compile_host(snapshot, facts_of([]), CompileCache(), PROGRAMS), "sysctls")
    assert found == {
        SysctlKey("", "net/ipv4/ip_forward"): Sysctl("0"),
        SysctlKey("", "net/ipv6/conf/all/forwarding"): Sysctl("1"),
        SysctlKey("", "net/core/somaxconn"): Sysctl("1024"),
    }


def test_static_routes_and_rules_of_the_node_are_rows() -> None:
    where = origin("Node", HERE, 7)
    network, gateway = IPv4Network("10.9.0.0/16"), IPv4Address("192.0.2.254")
    home = replace(
        NODES[HERE],
        routes=(StaticRoute(network, "uplink", gateway, 100, 5, where),),
        rules=(StaticRule(4, 20, 100, 1, 255, None, network, "", where),),
    )
    desired = compile_host(replace(snapshot_of([]), nodes={HERE: home}), facts_of([]), CompileCache(), PROGRAMS)
    assert rows(desired, "routes") == {RouteKey("", network, 100, 5): Route("uplink", gateway), **NOWHERE}
    assert rows(desired, "rules") == {RuleKey("", 4, 20): Rule(100, 1, 255, None, network, "")}


def test_two_documents_that_want_one_route_differently_are_refused() -> None:
    taken = StaticRoute(IPv4Network("10.44.1.2/32"), "uplink", None, 254, 0, origin("Node", HERE, 7))
    snapshot = replace(snapshot_of([WEB]), nodes={HERE: replace(NODES[HERE], routes=(taken,))})
    with pytest.raises(CompileError, match=r"node/alpha\.yaml:7.*workload/web\.yaml:1"):
        compile_host(snapshot, facts_of([WEB]), CompileCache(), PROGRAMS)


def test_audit_mode_is_a_matter_of_the_workloads_own_host() -> None:
    desired = compiled([replace(WEB, audit=True), replace(REMOTE, audit=True)])
    assert cached(desired, V4) == (256, IpcacheFlag.LOCAL | IpcacheFlag.AUDIT)
    assert cached(desired, IPv4Address("10.44.2.3")) == (257, IpcacheFlag(0))


def test_the_ipcache_knows_workloads_nodes_and_the_world() -> None:
    desired = compiled([WEB, REMOTE])
    assert cached(desired, V4) == (256, IpcacheFlag.LOCAL)
    assert cached(desired, V6) == (256, IpcacheFlag.LOCAL)
    assert cached(desired, IPv4Address("10.44.2.3")) == (257, IpcacheFlag(0))
    assert cached(desired, HOST_ADDRESS) == (Reserved.HOST, IpcacheFlag.HOST)
    assert cached(desired, IPv4Address("192.0.2.2")) == (Reserved.REMOTE_NODE, IpcacheFlag(0))
    assert identity_of(desired, IPv4Address("8.8.8.8")) == Reserved.WORLD_IPV4
    assert identity_of(desired, IPv6Address("2600::1")) == Reserved.WORLD_IPV6


def test_the_longest_cidr_is_the_identity_of_an_address() -> None:
    entries = (item("ingress[0]", (cidr("203.0.113.0/24", "203.0.113.8/29"),)), item("ingress[1]", (cidr("::/0"),)))
    desired = compiled([WEB], [rule(app("web"), entries)])
    inner, outer = (identity_of(desired, IPv4Address(text)) for text in ("203.0.113.9", "203.0.113.1"))
    assert inner != outer
    assert min(inner, outer) >= FIRST_LOCAL
    assert {str(label) for label in desired.identities[inner] if label.source == "cidr"} == {
        "cidr:0.0.0.0/0",
        "cidr:203.0.113.0/24",
        "cidr:203.0.113.8/29",
    }
    assert identity_of(desired, IPv6Address("2600::1")) == Reserved.WORLD_IPV6


def test_a_cidr_within_one_of_the_host_is_the_host() -> None:
    entries = (item("ingress[0]", (cidr("203.0.113.0/24"), cidr("203.0.113.9/32"), cidr("203.0.0.0/16"))),)
    own = replace(facts_of([WEB]), host_networks=frozenset({ip_network("203.0.113.0/25"), ip_network("fd09::/128")}))
    world = snapshot_of([WEB], [rule(app("web"), entries)])
    desired = compile_host(world, own, CompileCache(), PROGRAMS)
    assert cached(desired, IPv6Address("fd09::")) == (Reserved.HOST, IpcacheFlag.HOST)
    assert identity_of(desired, IPv4Address("203.0.113.9")) == Reserved.HOST
    assert identity_of(desired, IPv4Address("203.0.113.200")) >= FIRST_LOCAL
    assert identity_of(desired, IPv4Address("203.0.7.1")) >= FIRST_LOCAL


def test_an_address_of_another_nodes_cidr_that_nobody_knows_is_no_part_of_the_world() -> None:
    """Only this node's own free addresses are; there is nobody behind those."""
    desired = compiled([WEB, REMOTE])
    for text in ("10.44.2.77", "fd44:2::77"):
        assert identity_of(desired, ip_address(text)) == Reserved.UNMANAGED
    assert identity_of(desired, IPv4Address("10.44.1.77")) == Reserved.WORLD_IPV4


@pytest.mark.parametrize("named", ["10.44.0.0/16", "10.44.2.0/24", "10.44.2.64/26"])
@pytest.mark.parametrize("matches", [True, False])
def test_unknown_workloads_elsewhere_match_a_cidr_that_matches_workloads_and_never_the_world(
    named: str, matches: bool
) -> None:
    block = CidrPeer(ip_network(named), (), matches)
    desired = compiled([WEB], [rule(app("web"), (item("ingress[0]", (block,)),))])
    labels = desired.identities.get(identity_of(desired, IPv4Address("10.44.2.77")), frozenset())
    assert {str(label) for label in labels} == ({"reserved:unmanaged", f"ipblock:{named}"} if matches else set())
    assert matches or identity_of(desired, IPv4Address("10.44.2.77")) == Reserved.UNMANAGED


def test_a_cidr_keeps_its_identity_when_others_come_and_go() -> None:
    one = rule(app("web"), (item("ingress[0]", (cidr("203.0.113.0/24"),)),))
    two = rule(app("web"), (item("ingress[0]", (cidr("198.51.100.0/24"),)),), name="other")
    address = IPv4Address("203.0.113.1")
    assert identity_of(compiled([WEB], [one]), address) == identity_of(compiled([WEB], [two, one]), address)


def test_a_node_or_workload_is_never_taken_for_a_cidr() -> None:
    entries = (item("ingress[0]", (cidr("192.0.2.2/32"), cidr("10.44.1.2/32"), cidr("192.0.2.1/32"))),)
    desired = compiled([WEB], [rule(app("web"), entries)])
    assert cached(desired, IPv4Address("192.0.2.2"))[0] == Reserved.REMOTE_NODE
    assert cached(desired, HOST_ADDRESS)[0] == Reserved.HOST
    assert cached(desired, V4)[0] == 256


def test_one_address_of_two_workloads_is_refused() -> None:
    twin = replace(workload("twin", {"app": "twin"}), address4=V4)
    with pytest.raises(CompileError, match=r"10\.44\.1\.2 is the address of default/web and of default/twin"):
        compiled([WEB, twin])


def test_a_workload_with_an_address_of_the_host_is_refused() -> None:
    with pytest.raises(CompileError, match="is an address of the host itself"):
        compiled([replace(WEB, address4=HOST_ADDRESS)])


def test_the_ipcache_has_a_budget() -> None:
    with pytest.raises(CompileError, match="the ipcache needs 8 rows, over the limit of 3"):
        compile_host(snapshot_of([WEB]), facts_of([WEB]), CompileCache(), PROGRAMS, Budget(ipcache_rows=3))


def test_nothing_may_be_pruned_while_a_local_workload_lacks_its_endpoint() -> None:
    facts = facts_of([WEB])
    assert compile_host(snapshot_of([WEB]), facts, CompileCache(), PROGRAMS).complete
    assert not compile_host(snapshot_of([WEB]), replace(facts, endpoints={}), CompileCache(), PROGRAMS).complete
    assert not compile_host(snapshot_of([WEB]), replace(facts, complete=False), CompileCache(), PROGRAMS).complete


def test_an_identity_without_labels_is_refused_instead_of_left_open() -> None:
    with pytest.raises(CompileError, match="identity 256 of default/web has no labels"):
        compile_host(snapshot_of([WEB]), replace(facts_of([WEB]), identities={}), CompileCache(), PROGRAMS)
