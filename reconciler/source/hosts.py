"""Node documents: hosts with their CIDRs, addresses, static routes, rules and sysctls."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.model.cluster import Node as Host
from reconciler.model.cluster import StaticRoute, StaticRule
from reconciler.model.origin import Origin
from reconciler.source import addresses, metadata
from reconciler.source.cgroups import cgroup
from reconciler.source.cluster import Places
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node

MAIN_TABLE = 254  # RT_TABLE_MAIN in linux/rtnetlink.h
ALL_BITS = 0xFFFFFFFF

_SYSCTL = re.compile(r"[a-zA-Z0-9_:@.-]+(/[a-zA-Z0-9_:@.-]+)+\Z")


def host(document: Node, identity: Identity, findings: Findings) -> tuple[Host, Places]:
    """The host, and the places of its CIDRs (`cidr4`, `cidr6`) and addresses (`address4`, `address6`)."""
    origin = Origin("", document.place.line, identity.kind, identity.name, "")
    spec = document.get("spec") or document
    cidrs = _cidrs(spec, findings)
    own = addresses.per_family(spec.items("addresses"), findings, "the node")
    cidr4, cidr6 = cidrs.get(4), cidrs.get(6)
    address4, address6 = own.get(4), own.get(6)
    places = {f"cidr{family}": node.place for family, (_, node) in cidrs.items()}
    places |= {f"address{family}": node.place for family, (_, node) in own.items()}
    return Host(
        name=identity.name,
        origin=origin,
        cidr4=cidr4[0] if cidr4 and isinstance(cidr4[0], IPv4Network) else None,
        cidr6=cidr6[0] if cidr6 and isinstance(cidr6[0], IPv6Network) else None,
        address4=address4[0] if address4 and isinstance(address4[0], IPv4Address) else None,
        address6=address6[0] if address6 and isinstance(address6[0], IPv6Address) else None,
        labels=metadata.labels(document, findings),
        routes=tuple(_routes(spec, identity, findings)),
        rules=tuple(_rules(spec, identity, findings)),
        sysctls=_sysctls(spec, findings),
        devices=tuple(dict.fromkeys(addresses.interface(node, findings) for node in spec.items("devices"))),
        ansible=dict(spec.read("ansible", default={})),
        cgroup=cgroup(spec, findings, root=True),
    ), places


def _cidrs(spec: Node, findings: Findings) -> dict[int, tuple[addresses.Network, Node]]:
    found: dict[int, tuple[addresses.Network, Node]] = {}
    for node in spec.items("cidrs"):
        network = addresses.network(node, findings)
        if network is None:
            continue
        if network.version in found:
            findings.fault(node, f"the node has two IPv{network.version} cidrs, at most one of each family is allowed")
        elif network.num_addresses < 4:
            findings.fault(node, f"cidr {network} is too small to give an address to a workload")
        elif network.is_multicast or network.is_loopback or network.is_unspecified:
            findings.fault(node, f"cidr {network} holds no addresses that a workload can have")
        found[network.version] = network, node
    return found


def _routes(spec: Node, identity: Identity, findings: Findings) -> list[StaticRoute]:
    found: dict[tuple[object, ...], StaticRoute] = {}
    for node in spec.items("routes"):
        where, via = node.get("destination"), node.get("gateway")
        destination = addresses.network(where, findings) if where else None
        gateway = addresses.address(via, findings) if via else None
        ifname = node.get("interface")
        if destination is None or ifname is None:
            continue
        if gateway is not None and gateway.version != destination.version:
            findings.fault(node.place_of("gateway"), f"gateway {gateway} is not of the family of {destination}")
        table, priority = int(node.read("table", default=MAIN_TABLE)), int(node.read("priority", default=0))
        key = (destination, table, priority)
        if key in found:
            findings.fault(node, f"a second route to {destination} with the same table and priority")
        found[key] = StaticRoute(
            destination, addresses.interface(ifname, findings), gateway, table, priority, _origin(node, identity)
        )
    return list(found.values())


def _rules(spec: Node, identity: Identity, findings: Findings) -> list[StaticRule]:
    found: dict[tuple[int, int], StaticRule] = {}
    for node in spec.items("rules"):
        source, destination = (
            addresses.network(part, findings) if (part := node.get(field)) else None for field in ("from", "to")
        )
        family = _family(node, (source, destination), findings)
        ifname = node.get("interface")
        mark = int(node.read("mark", default=0))
        rule = StaticRule(
            family=family,
            priority=int(node.read("priority")),
            table=int(node.read("table")),
            mark=mark,
            mark_mask=int(node.read("markMask", default=ALL_BITS if mark else 0)),
            source=source,
            destination=destination,
            in_ifname=addresses.interface(ifname, findings) if ifname else "",
            origin=_origin(node, identity),
        )
        if (family, rule.priority) in found:
            findings.fault(node.place_of("priority"), f"a second IPv{family} rule with priority {rule.priority}")
        found[family, rule.priority] = rule
    return list(found.values())


def _family(node: Node, networks: tuple[addresses.Network | None, ...], findings: Findings) -> int:
    told: set[int] = {network.version for network in networks if network is not None}
    if (given := node.get("family")) is not None:
        told.add(int(given.value))
    if len(told) > 1:
        findings.fault(node, "family, from and to must be of one family")
    elif not told:
        findings.fault(node, "the rule has no family (4 or 6), and neither from nor to that would tell")
    return min(told, default=4)


def _sysctls(spec: Node, findings: Findings) -> dict[str, str]:
    """Path below /proc/sys with slashes -> value. In the dotted form a slash stands for a dot (sysctl(8)).

    Only those of the network: by others, as kernel.core_pattern, who may push a policy would be root on every host.
    """
    found: dict[str, str] = {}
    sysctls = spec.get("sysctls")
    for key, node in sysctls.members() if sysctls else ():
        assert sysctls is not None
        first_dot, first_slash = key.find("."), key.find("/")
        dotted = first_dot >= 0 and (first_slash < 0 or first_dot < first_slash)
        name = key.translate({ord("."): "/", ord("/"): "."}) if dotted else key
        if not _SYSCTL.match(name) or ".." in name.split("/"):
            findings.fault(sysctls.key_place(key), f'"{key}" is not the name of a sysctl')
        elif not name.startswith("net/"):
            findings.fault(sysctls.key_place(key), f"{key} is not below net: no other sysctl is set from a repository")
        elif name in found:
            findings.fault(sysctls.key_place(key), f"{key} is given twice, with dots and with slashes")
        if "\n" in str(node.value):
            findings.fault(node, f"the value of {key} has more than one line")
        found[name] = str(node.value)
    return found


def _origin(node: Node, identity: Identity) -> Origin:
    return Origin("", node.place.line, identity.kind, identity.name, "")
