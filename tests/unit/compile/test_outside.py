"""What the host itself is asked to do: rules for nodes, masquerading, and the devices where both happen."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.model.cluster import DirectReturn, Enforcement, Network, NetworkMode, Services
from reconciler.model.datapath import AttachmentKey, Hook, Verdict
from reconciler.model.identity import Reserved
from reconciler.model.network import SysctlKey
from reconciler.model.outside import DeviceFlag, DeviceRow, Masquerade, NodeDevice
from reconciler.model.policy import PolicyRule, Scope
from reconciler.model.selector import Selector, label_is
from tests.unit.compile.lookup import judge, policy_rows
from tests.unit.compile.worlds import (
    HERE,
    HOST_ADDRESS,
    NODES,
    PROGRAMS,
    TCP,
    app,
    facts_of,
    item,
    peers,
    rule,
    snapshot_of,
    tcp,
    workload,
)

WEB = workload("web", {"app": "web"})
OUTSIDE = IPv4Address("203.0.113.9")
DEVICE = NodeDevice(IPv4Address("192.0.2.1"))
ALL_PROGRAMS = {**PROGRAMS, **dict.fromkeys(("from_netdev", "to_netdev", "from_overlay", "to_overlay"), "digest")}
SSH = item("ingress[0]", None, (tcp(22),))


def for_nodes(selector: Selector, **more: object) -> PolicyRule:
    return replace(rule(selector, (SSH,), **more), scope=Scope.NODES)


def compiled(*rules: PolicyRule, labels: dict[str, str] | None = None, **cluster: object) -> Desired:
    snapshot = snapshot_of([WEB], rules, **cluster)
    snapshot = replace(snapshot, nodes={**NODES, HERE: replace(NODES[HERE], labels=labels or {})})
    facts = replace(facts_of([WEB]), devices={"eth0": DEVICE})
    return compile_host(snapshot, facts, CompileCache(), ALL_PROGRAMS)


def subjects(desired: Desired) -> set[int]:
    return set(policy_rows(desired).keys["subject"].tolist())


def test_a_rule_for_nodes_isolates_the_host_but_for_what_it_allows() -> None:
    desired = compiled(for_nodes(Selector()))
    assert judge(desired, HOST_ADDRESS, OUTSIDE, TCP, 22).verdict is Verdict.ALLOW
    assert judge(desired, HOST_ADDRESS, OUTSIDE, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(desired, HOST_ADDRESS, OUTSIDE, TCP, 80, egress=True).verdict is Verdict.ALLOW


@pytest.mark.parametrize(("labels", "is_subject"), [({"role": "edge"}, True), ({"role": "core"}, False)])
def test_a_rule_for_nodes_is_for_nodes_with_its_labels(labels: dict[str, str], is_subject: bool) -> None:
    desired = compiled(for_nodes(Selector((label_is("any", "role", "edge"),))), labels=labels)
    assert (int(Reserved.HOST) in subjects(desired)) is is_subject


def test_a_rule_for_nodes_selects_no_workload_and_a_rule_for_workloads_no_node() -> None:
    of_nodes, of_workloads = for_nodes(Selector()), rule(Selector(), (item("ingress[0]", peers(app("web"))),))
    desired = compiled(of_nodes, of_workloads, labels={"app": "web"})
    web = facts_of([WEB]).endpoints[WEB.reference].address4
    assert web is not None
    assert judge(desired, HOST_ADDRESS, web, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(desired, web, OUTSIDE, TCP, 22).verdict is Verdict.DEFAULT_DENY


def test_enforcement_always_does_not_close_a_host_that_no_rule_selects() -> None:
    assert int(Reserved.HOST) not in subjects(compiled(enforcement=Enforcement.ALWAYS))
    desired = compiled(for_nodes(Selector()), enforcement=Enforcement.ALWAYS)
    assert judge(desired, HOST_ADDRESS, OUTSIDE, TCP, 80, egress=True).verdict is Verdict.ALLOW


def test_a_host_that_no_rule_selects_and_that_masquerades_nobody_has_nothing_on_its_devices() -> None:
    desired = compiled()
    assert not desired.tables["devices"]
    assert AttachmentKey("eth0", Hook.INGRESS) not in desired.tables["attachments"].rows  # type: ignore[union-attr]


def test_a_rule_for_the_host_puts_programs_on_its_devices() -> None:
    tables = compiled(for_nodes(Selector())).tables
    assert tables["devices"].rows == {"eth0": DeviceRow(DeviceFlag.HOST_POLICY)}  # type: ignore[union-attr]
    programs = {key.hook: row.program for key, row in tables["attachments"].rows.items() if key.ifname == "eth0"}  # type: ignore[union-attr]
    assert programs == {Hook.INGRESS: "from_netdev", Hook.EGRESS: "to_netdev"}


def test_masquerading_knows_its_address_its_ports_and_whom_it_is_not_for() -> None:
    excluded = IPv4Network("10.0.0.0/8")
    tables = compiled(masquerade=Masquerade(enabled=True, exclude=(excluded,), first_port=50000)).tables
    assert tables["devices"].rows == {"eth0": DeviceRow(DeviceFlag.MASQUERADE4, DEVICE.address4)}  # type: ignore[union-attr]
    cidrs = {cidr for node in NODES.values() for cidr in (node.cidr4, node.cidr6)}
    assert tables["plain"].rows.keys() == {excluded, *cidrs}  # type: ignore[union-attr]
    reserved = tables["sysctls"].rows[SysctlKey("", "net/ipv4/ip_local_reserved_ports")]  # type: ignore[union-attr]
    assert reserved.value == "50000-65535"


def test_a_device_without_an_address_masquerades_nobody_and_has_nothing_on_it() -> None:
    snapshot = snapshot_of([WEB], masquerade=Masquerade(enabled=True))
    facts = replace(facts_of([WEB]), devices={"eth0": NodeDevice()})
    assert not compile_host(snapshot, facts, CompileCache(), ALL_PROGRAMS).tables["devices"]


@pytest.mark.parametrize("mode", NetworkMode)
def test_a_host_that_only_has_backends_has_the_programs_of_services_too(mode: NetworkMode) -> None:
    """What other hosts bring its backends comes in there, and their answers leave there."""
    services, network = Services(direct_return=DirectReturn.GENEVE), Network(mode)
    attached = compiled(services=services, network=network).tables["attachments"].rows  # type: ignore[union-attr]
    assert {AttachmentKey("eth0", hook) for hook in (Hook.INGRESS, Hook.EGRESS)} <= attached.keys()


def test_devices_serve_where_the_cluster_serves_services() -> None:
    desired = compiled(services=Services())
    assert desired.tables["devices"].rows == {"eth0": DeviceRow(DeviceFlag.SERVICES, DEVICE.address4)}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("masquerading", "node_ports", "reserved"),
    [
        ((49152, 65535), (30000, 32767), "30000-32767,49152-65535"),
        ((20000, 29999), (30000, 32767), "20000-32767"),
        ((20000, 20000), (30000, 30000), "20000,30000"),
    ],
)
def test_no_socket_gets_a_node_port_or_one_of_masquerading_by_itself(
    masquerading: tuple[int, int], node_ports: tuple[int, int], reserved: str
) -> None:
    """In the form in which the kernel gives it back, or it would look like drift."""
    services, masquerade = Services((), *node_ports), Masquerade(True, (), *masquerading)
    rows = compiled(services=services, masquerade=masquerade).tables["sysctls"].rows  # type: ignore[union-attr]
    assert rows[SysctlKey("", "net/ipv4/ip_local_reserved_ports")].value == reserved


def test_what_is_wrapped_for_backends_over_routes_comes_from_the_nodes_own_address() -> None:
    own = {"lo": DeviceRow(DeviceFlag.NOTHING, NODES[HERE].address4, NODES[HERE].address6)}
    eth0 = {"eth0": DeviceRow(DeviceFlag.SERVICES, DEVICE.address4)}
    direct = Services(direct_return=DirectReturn.GENEVE)
    vxlan = Network(mode=NetworkMode.VXLAN)  # whose tunnels say where from
    assert compiled(services=direct).tables["devices"].rows == own | eth0  # type: ignore[union-attr]
    assert "lo" not in compiled(services=direct, network=vxlan).tables["devices"].rows  # type: ignore[union-attr]
