"""Identities of workloads, refined where a label set's members differ in what rules ask for and labels do not tell.

Two such things: whether an address lies inside an ipBlock that matches workloads, and which number a named port has.
Where members of a label set differ, each group of alike members gets an identity of this host, with the labels of the
shared one, so that selectors treat it as before and ipBlocks and named ports are exact. Where all members are alike,
the shared identity serves. A refined number is drawn from the shared identity and what marks the group, so it keeps
its meaning when other groups come and go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.networks import CIDR_NUMBERS, IpAddress, IpNetwork
from reconciler.compile.numbering import number
from reconciler.compile.selectors import IPBLOCK_SOURCE
from reconciler.errors import CompileError
from reconciler.model.cluster import NamedPort, Workload
from reconciler.model.facts import Endpoint, Facts, RemoteEndpoints
from reconciler.model.identity import FIRST_LOCAL
from reconciler.model.labels import Label, LabelSet

MAPPED_LOW = 0xFFFF << 32  # ::ffff:0:0, RFC 4291 section 2.5.5.2
WORD = (1 << 64) - 1
PortName = tuple[str, int]  # name, protocol
REFINED_NUMBERS = 1 << 23
FIRST_REFINED = FIRST_LOCAL + CIDR_NUMBERS


class Member(NamedTuple):
    """One address of one workload; `key` is the workload's in the snapshot."""

    key: str
    address: IpAddress
    identity: int
    workload: Workload
    local: bool


@dataclass(frozen=True, slots=True)
class Members:
    """members  those that this host or manifests tell of
    remote   the identity of each row of `Facts.remote`
    labels   identity -> labels, where they differ from those in the facts, and of refined identities
    ports    identity -> its named ports, of identities that have some that rules ask for
    """

    members: tuple[Member, ...]
    remote: NDArray[np.uint32]
    labels: Mapping[int, LabelSet] = field(default_factory=dict)
    ports: Mapping[int, frozenset[NamedPort]] = field(default_factory=dict)


class _Marks(NamedTuple):
    """What tells the members of a label set apart."""

    blocks: frozenset[IpNetwork]
    ports: frozenset[NamedPort]

    def text(self) -> str:
        ports = sorted(f"{port.name}/{port.protocol}={port.port}" for port in self.ports)
        return ",".join(sorted(map(str, self.blocks)) + ports)


def members(
    workloads: Mapping[str, Workload], facts: Facts, blocks: frozenset[IpNetwork], names: frozenset[PortName]
) -> Members:
    """Every address of the cluster's workloads. `blocks`: CIDRs that match workloads, `names`: the ports asked for.

    O(workloads); those of other hosts are looked at in columns, and only where something is asked for.
    Raises CompileError if two workloads have one address, or an identity has no labels.
    """
    found = list(_members(workloads, facts))
    _refuse_shared_addresses(found)
    if not blocks and not names:
        return Members(tuple(found), facts.remote.rows["identity"])
    by_length = _by_length(blocks)
    marks = [_marks(member, by_length, names) for member in found]
    kinds, kind_of = _remote_kinds(facts.remote, blocks, names)
    groups: defaultdict[int, set[_Marks]] = defaultdict(set)
    for shared, own in (*((one.identity, own) for one, own in zip(found, marks, strict=True)), *kinds):
        groups[shared].add(own)
    split = {(shared, own): f"{shared} {own.text()}" for shared, kinds in groups.items() for own in kinds}
    drawn = number((text for (shared, _), text in split.items() if len(groups[shared]) > 1), REFINED_NUMBERS)
    numbers = {key: FIRST_REFINED + drawn[text] if text in drawn else key[0] for key, text in split.items()}
    refined = [
        member._replace(identity=numbers[member.identity, own]) for member, own in zip(found, marks, strict=True)
    ]
    labels = {numbers[shared, own]: facts.identities[shared] | _labels(own) for shared, own in numbers}
    ports = {refined_to: own.ports for (_, own), refined_to in numbers.items() if own.ports}
    remote = np.array([numbers[kind] for kind in kinds], np.uint32)[kind_of]
    return Members(tuple(refined), remote, labels, ports)


def _remote_kinds(
    remote: RemoteEndpoints, blocks: frozenset[IpNetwork], names: frozenset[PortName]
) -> tuple[list[tuple[int, _Marks]], NDArray[np.intp]]:
    """The different shared identities with their marks, and which of them each row has. O(rows * blocks)."""
    rows, ordered = remote.rows, sorted(blocks, key=str)
    if not len(rows):
        return [], np.empty(0, np.intp)
    inside = np.array([_inside(rows, block) for block in ordered], np.bool_).reshape(len(ordered), len(rows))
    octets = np.packbits(inside, axis=0).T
    told = np.column_stack([rows["identity"], rows["ports"], octets])
    _, first, kind_of = np.unique(told, axis=0, return_index=True, return_inverse=True)
    ports = [frozenset(port for port in one if (port.name, port.protocol) in names) for one in remote.ports]
    kinds = [
        (
            int(rows["identity"][row]),
            _Marks(frozenset(ordered[place] for place in np.flatnonzero(inside[:, row])), ports[rows["ports"][row]]),
        )
        for row in first
    ]
    return kinds, kind_of.reshape(-1)


def _inside(rows: NDArray[np.void], block: IpNetwork) -> NDArray[np.bool_]:
    prefix = int(block.network_address) | (MAPPED_LOW if block.version == 4 else 0)
    mask = ((1 << block.prefixlen) - 1) << (block.max_prefixlen - block.prefixlen)
    mask |= 0 if block.version == 6 else ((1 << 96) - 1) << 32
    high, low = ((rows[name] & np.uint64(part)) for name, part in (("high", mask >> 64), ("low", mask & WORD)))
    found: NDArray[np.bool_] = (high == np.uint64(prefix >> 64)) & (low == np.uint64(prefix & WORD))
    return found


def _members(workloads: Mapping[str, Workload], facts: Facts) -> Iterable[Member]:
    endpoints = facts.endpoints
    for key, workload in workloads.items():
        endpoint = endpoints.get(key)
        if endpoint is None:
            continue
        if endpoint.identity not in facts.identities:
            raise CompileError(f"{workload.origin}: identity {endpoint.identity} of {workload.reference} has no labels")
        local = workload.node == facts.node
        for address in addresses(endpoint):
            yield Member(key, address, endpoint.identity, workload, local)


def addresses(endpoint: Endpoint) -> list[IpAddress]:
    return [address for address in (endpoint.address4, endpoint.address6) if address is not None]


def _refuse_shared_addresses(found: Iterable[Member]) -> None:
    owners: dict[tuple[int, int], Workload] = {}
    for _, address, _, workload, _ in found:
        other = owners.setdefault((address.version, int(address)), workload)
        if other is not workload:
            raise CompileError(
                f"{workload.origin}: {address} is the address of {other.reference} and of {workload.reference}"
            )


_ByLength = Mapping[tuple[int, int], Mapping[int, IpNetwork]]  # (version, host bits) -> bits of the network -> network


def _by_length(networks: Iterable[IpNetwork]) -> _ByLength:
    found: defaultdict[tuple[int, int], dict[int, IpNetwork]] = defaultdict(dict)
    for network in networks:
        host_bits = network.max_prefixlen - network.prefixlen
        found[network.version, host_bits][int(network.network_address) >> host_bits] = network
    return found


def _marks(member: Member, blocks: _ByLength, names: frozenset[PortName]) -> _Marks:
    value, version = int(member.address), member.address.version
    around = (of_length.get(value >> bits) for (family, bits), of_length in blocks.items() if family == version)
    ports = (port for port in member.workload.ports if (port.name, port.protocol) in names)
    return _Marks(frozenset(network for network in around if network is not None), frozenset(ports))


def _labels(marks: _Marks) -> LabelSet:
    return frozenset(Label(IPBLOCK_SOURCE, str(block)) for block in marks.blocks)
