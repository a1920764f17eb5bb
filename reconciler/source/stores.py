"""What a Cluster document says of what hosts share: the store, and the pools of nodes' CIDRs."""

from __future__ import annotations

import re
from ipaddress import ip_address

from reconciler.model.cluster import JoinedCluster, Pool, StoreChoice, StoreKind
from reconciler.source import addresses
from reconciler.source.node import Findings, Node

_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z"
)
_NUMBERS = re.compile(r"[0-9.]+\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


def choice(spec: Node, findings: Findings) -> StoreChoice:
    kind = StoreKind(spec.read("store", "kind", default=StoreKind.EMBEDDED.value))
    nodes = spec.items("store", "endpoints")
    for node in nodes:
        if not _is_endpoint(node.value):
            text = f'"{node.value}" is not an endpoint: write host:port, an IPv6 address in brackets, without https://'
            findings.fault(node, text)
    if kind is StoreKind.ETCD and not nodes:
        findings.fault(
            spec.place_of("store", "kind"), "a store of kind etcd needs `endpoints`: host:port of its servers"
        )
    if kind is StoreKind.EMBEDDED and nodes:
        findings.fault(spec.place_of("store", "endpoints"), "`endpoints` are for a store of `kind: etcd`")
    ttl_s = float(spec.read("store", "ttl", default=StoreChoice().ttl_s))
    return StoreChoice(kind, tuple(node.value for node in nodes), ttl_s)


def clusters(spec: Node, own_name: str, findings: Findings) -> tuple[JoinedCluster, ...]:
    found: list[JoinedCluster] = []
    names, ids = {own_name: "this cluster"}, {int(spec.read("id", default=0)): "this cluster"}
    for node in spec.items("clusters"):
        name, number = node.read("name"), int(node.read("id"))
        if name in names:
            findings.fault(node.place_of("name"), f'"{name}" is already the name of {names[name]}')
        if number in ids:
            findings.fault(node.place_of("id"), f"{number} is already the id of {ids[number]}: identities carry it")
        names[name], ids[number] = f"cluster {name}", f"cluster {name}"
        found.append(JoinedCluster(name, number, choice(node, findings)))
    return tuple(found)


def pools(spec: Node, findings: Findings) -> tuple[Pool, ...]:
    found: dict[int, Pool] = {}
    for node in spec.items("pools"):
        where = node.get("cidr")
        cidr = addresses.network(where, findings) if where else None
        if cidr is None:
            continue
        prefix = int(node.read("nodePrefix"))
        if cidr.version in found:
            findings.fault(node, f"there are two IPv{cidr.version} pools, at most one of each family is allowed")
        elif cidr.is_multicast or cidr.is_loopback or cidr.is_unspecified:
            findings.fault(node, f"pool {cidr} holds no addresses that a workload can have")
        elif not cidr.prefixlen <= prefix <= cidr.max_prefixlen - 2:
            allowed = f"{cidr.prefixlen} to {cidr.max_prefixlen - 2}"
            findings.fault(
                node.place_of("nodePrefix"), f"nodePrefix {prefix} does not fit {cidr}: allowed are {allowed}"
            )
        found[cidr.version] = Pool(cidr, prefix)
    return tuple(found.values())


def _is_endpoint(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.match(port) or int(port) > 65535:
        return False
    if host.startswith("[") and host.endswith("]"):
        return _version(host[1:-1]) == 6
    return _version(host) == 4 if _NUMBERS.match(host) else bool(_NAME.match(host))


def _version(text: str) -> int:
    try:
        return ip_address(text).version
    except ValueError:
        return 0
