"""What a host knows besides the commit: identities and addresses that were allocated, and its own addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from reconciler.model.labels import LabelSet


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A workload with what it was given. `ifname` is the host end of its veth pair (at most 15 bytes)."""

    reference: str  # namespace/name of its Workload
    node: str
    identity: int
    ifname: str
    address4: IPv4Address | None
    address6: IPv6Address | None
    mac: str


@dataclass(frozen=True, slots=True)
class Facts:
    """`identities`: number -> labels, of workloads and of reserved ones, whole cluster.
    `endpoints`: workload reference -> endpoint, whole cluster.
    `complete` is false while something is still unknown: then nothing may be pruned.
    """

    node: str
    identities: Mapping[int, LabelSet]
    endpoints: Mapping[str, Endpoint]
    host_addresses: frozenset[IPv4Address | IPv6Address]
    complete: bool = True
