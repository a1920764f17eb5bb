"""Which identity each address has, seen from this host.

Three kinds: the shared identities of label sets; an identity of this host for each CIDR that rules name; and refined
ones. A label set is refined where its members differ in something that a rule asks for and labels do not tell: whether
an address lies inside an ipBlock that matches workloads, and which number a named port has. Each group of alike members
then gets an identity of this host with the labels of the original, marked with the ipBlocks, so that selectors treat
it as before and ipBlocks and named ports are exact. Where all members are alike, the shared identity serves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from reconciler.compile.numbering import number
from reconciler.compile.selectors import IPBLOCK_SOURCE
from reconciler.errors import CompileError
from reconciler.model.cluster import NamedPort, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.labels import Label, LabelSet
from reconciler.model.policy import CidrPeer, PolicyRule

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network
PortName = tuple[str, int]  # name, protocol

WORLD: dict[IpNetwork, Reserved] = {
    IPv4Network("0.0.0.0/0"): Reserved.WORLD_IPV4,
    IPv6Network("::/0"): Reserved.WORLD_IPV6,
}
MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2; where IPv4 lives in the ipcache


@dataclass(frozen=True, slots=True)
class Asked:
    """What the rules of this host ask for beyond labels. `blocks` are the networks that match workloads too."""

    networks: frozenset[IpNetwork] = frozenset()
    blocks: frozenset[IpNetwork] = frozenset()
    names: frozenset[PortName] = frozenset()


@dataclass(frozen=True, slots=True)
class Identities:
    """labels     identity -> labels, everything that can be a peer
    addresses  address -> identity, of every workload of the cluster
    networks   CIDR -> identity, of those that rules name
    ports      identity -> its named ports, where rules ask for them
    refined    identity -> the shared identity that it refines
    """

    labels: Mapping[int, LabelSet]
    addresses: Mapping[IpAddress, int]
    networks: Mapping[IpNetwork, int]
    ports: Mapping[int, frozenset[NamedPort]] = field(default_factory=dict)
    refined: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Marks:
    """What tells the members of a label set apart."""

    blocks: frozenset[IpNetwork]
    ports: frozenset[NamedPort]

    def __str__(self) -> str:
        ports = sorted(f"{port.name}/{port.protocol}={port.port}" for port in self.ports)
        return ",".join(sorted(map(str, self.blocks)) + ports)


def asked(rules: Iterable[PolicyRule]) -> Asked:
    """Raises CompileError for an IPv6 CIDR of mapped IPv4 addresses: those are written as IPv4."""
    networks: set[IpNetwork] = set()
    blocks: set[IpNetwork] = set()
    names: set[PortName] = set()
    for rule in rules:
        for item in rule.ingress + rule.egress:
            names |= {(match.name, match.protocol) for match in item.ports or () if match.name}
            for peer in item.peers or ():
                if isinstance(peer, CidrPeer):
                    bounds = {peer.network, *peer.excepts}
                    _refuse_mapped(bounds, f"{item.origin}: {item.field}")
                    networks |= bounds
                    blocks |= bounds if peer.matches_workloads else set()
    return Asked(frozenset(networks), frozenset(blocks), frozenset(names))


def _refuse_mapped(networks: Iterable[IpNetwork], where: str) -> None:
    for network in networks:
        if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
            raise CompileError(f"{where}: {network} are IPv4 addresses; write them as IPv4")


def identities(workloads: Mapping[str, Workload], facts: Facts, wanted: Asked) -> Identities:
    """O(workloads). Raises CompileError if two workloads have one address, or an identity has no labels."""
    endpoints = [(workload, facts.endpoints[key]) for key, workload in workloads.items() if key in facts.endpoints]
    _refuse_unknown(endpoints, facts)
    addresses = _shared(endpoints)
    alike = _alike(endpoints, wanted)
    split = {shared: groups for shared, groups in alike.items() if len(groups) > 1}
    names = {f"{shared} {marks}": (shared, marks) for shared, groups in split.items() for marks in groups}
    networks = _nested(wanted.networks - WORLD.keys())
    numbers = number([*names, *map(str, networks)], FIRST_LOCAL)
    labels = {int(kind): reserved_labels(kind) for kind in Reserved if kind is not Reserved.UNKNOWN}
    labels |= facts.identities
    ports, refined = {}, {}
    for shared, groups in alike.items():
        for marks, members in groups.items():
            own = FIRST_LOCAL + numbers[f"{shared} {marks}"] if shared in split else shared
            labels[own] = facts.identities[shared] | {Label(IPBLOCK_SOURCE, str(block)) for block in marks.blocks}
            ports[own] = marks.ports
            addresses |= dict.fromkeys(members, own)
            if own != shared:
                refined[own] = shared
    for network, around in networks.items():
        labels[FIRST_LOCAL + numbers[str(network)]] = _world_labels(network, around)
    for network in wanted.networks & WORLD.keys():
        labels[WORLD[network]] |= {_cidr_label(network)}
    known = {network: FIRST_LOCAL + numbers[str(network)] for network in networks}
    return Identities(labels, addresses, known, ports, refined)


def _refuse_unknown(endpoints: Iterable[tuple[Workload, Endpoint]], facts: Facts) -> None:
    for workload, endpoint in endpoints:
        if endpoint.identity not in facts.identities:
            raise CompileError(f"{workload.origin}: identity {endpoint.identity} of {workload.reference} has no labels")


def _shared(endpoints: Iterable[tuple[Workload, Endpoint]]) -> dict[IpAddress, int]:
    addresses: dict[IpAddress, int] = {}
    owners: dict[IpAddress, Workload] = {}
    for workload, endpoint in endpoints:
        for address in (endpoint.address4, endpoint.address6):
            if address is None:
                continue
            if address in addresses:
                raise CompileError(
                    f"{workload.origin}: {address} is the address of {owners[address].reference} and of "
                    f"{workload.reference}"
                )
            addresses[address] = endpoint.identity
            owners[address] = workload
    return addresses


def _alike(endpoints: Iterable[tuple[Workload, Endpoint]], wanted: Asked) -> dict[int, dict[_Marks, list[IpAddress]]]:
    """shared identity -> marks -> addresses; empty if no rule asks for anything that could tell members apart."""
    alike: defaultdict[int, dict[_Marks, list[IpAddress]]] = defaultdict(dict)
    if not wanted.blocks and not wanted.names:
        return {}
    blocks = _by_length(wanted.blocks)
    for workload, endpoint in endpoints:
        ports = frozenset(port for port in workload.ports if (port.name, port.protocol) in wanted.names)
        for address in (endpoint.address4, endpoint.address6):
            if address is not None:
                marks = _Marks(frozenset(_around(address, blocks)), ports)
                alike[endpoint.identity].setdefault(marks, []).append(address)
    return alike


def _by_length(networks: Iterable[IpNetwork]) -> dict[tuple[int, int], dict[int, IpNetwork]]:
    """(version, host bits) -> network number without its host bits -> network."""
    found: defaultdict[tuple[int, int], dict[int, IpNetwork]] = defaultdict(dict)
    for network in networks:
        host_bits = network.max_prefixlen - network.prefixlen
        found[network.version, host_bits][int(network.network_address) >> host_bits] = network
    return found


def _around(address: IpAddress, blocks: Mapping[tuple[int, int], Mapping[int, IpNetwork]]) -> list[IpNetwork]:
    value = int(address)
    return [
        network
        for (version, host_bits), networks in blocks.items()
        if version == address.version and (network := networks.get(value >> host_bits))
    ]


def _nested(networks: Iterable[IpNetwork]) -> dict[IpNetwork, tuple[IpNetwork, ...]]:
    """network -> those among `networks` that contain it, itself last."""
    nested: dict[IpNetwork, tuple[IpNetwork, ...]] = {}
    around: tuple[IpNetwork, ...] = ()
    for network in sorted(networks, key=lambda net: (net.version, net.network_address, net.prefixlen)):
        around = tuple(outer for outer in around if _contains(outer, network))
        around += (network,)
        nested[network] = around
    return nested


def _contains(outer: IpNetwork, inner: IpNetwork) -> bool:
    return outer.version == inner.version and inner.network_address in outer


def _world_labels(network: IpNetwork, around: Iterable[IpNetwork]) -> LabelSet:
    world = reserved_labels(Reserved.WORLD_IPV4 if network.version == 4 else Reserved.WORLD_IPV6)
    everything = ip_network("0.0.0.0/0" if network.version == 4 else "::/0")
    return world | {_cidr_label(outer) for outer in (*around, everything)}


def _cidr_label(network: IpNetwork) -> Label:
    return Label("cidr", str(network))
