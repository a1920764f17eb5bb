"""What a node says of itself to the others for as long as it lives: where it is, and which CIDRs are its own.

A name belongs to the instance that claimed it (a number that a host draws once), until that one's lease ends.

    .../nodes/<node>    the registration, as JSON, under the node's lease
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import quote, unquote

from reconciler.errors import StoreError
from reconciler.model.cluster import DirectReturn
from reconciler.model.origin import Origin
from reconciler.store.protocol import ABSENT, Item, Store, root

log = logging.getLogger(__name__)

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network


class NameClaimed(StoreError):
    """Another host has registered this node's name."""


@dataclass(frozen=True, slots=True)
class Registration:
    """`since`: ISO 8601, by the node's own clock: for people. `origin`: the node's manifest as it was then.

    `direct_return`: in which way the node takes what others bring to its backends, as `services.directReturn` of a
    Cluster has it; of a later version, or of an earlier one that says nothing, it may be a way that nobody asks for.
    """

    node: str
    instance: str
    addresses: tuple[IpAddress, ...]
    cidrs: tuple[IpNetwork, ...]
    version: str
    since: str
    origin: Origin
    direct_return: str = DirectReturn.NONE.value

    def address(self, family: int) -> Any:
        return next((one for one in self.addresses if one.version == family), None)

    def cidr(self, family: int) -> Any:
        return next((one for one in self.cidrs if one.version == family), None)

    def encoded(self) -> bytes:
        origin = self.origin
        return json.dumps(
            {
                "instance": self.instance,
                "addresses": [str(one) for one in self.addresses],
                "cidrs": [str(one) for one in self.cidrs],
                "version": self.version,
                "since": self.since,
                "origin": [origin.path, origin.line, origin.commit],
                "direct_return": self.direct_return,
            }
        ).encode()


def nodes_prefix(cluster: str) -> str:
    return f"{root(cluster)}nodes/"


def node_key(cluster: str, node: str) -> str:
    return nodes_prefix(cluster) + quote(node, safe="")


def registration_of(item: Item) -> Registration:
    """Raises StoreError for what is none."""
    node = unquote(item.key.rpartition("/")[2])
    try:
        value = json.loads(item.value)
        path, line, commit = value["origin"]
        return Registration(
            node,
            value["instance"],
            tuple(ip_address(one) for one in value["addresses"]),
            tuple(ip_network(one) for one in value["cidrs"]),
            value["version"],
            value["since"],
            Origin(path, line, "Node", node, commit),
            str(value.get("direct_return", DirectReturn.NONE.value)),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{item.key} in the store is not a node: {error}") from error


def registrations(items: Iterable[Item]) -> dict[str, Registration]:
    """node -> its registration; without those that cannot be read, which the log names."""
    found = {}
    for item in items:
        try:
            one = registration_of(item)
        except StoreError as error:
            log.warning("not believed: %s", error)
        else:
            found[one.node] = one
    return found


def claim(store: Store, cluster: str, mine: Registration, lease: int) -> None:
    """The node's name is this instance's for as long as the lease lasts. Raises NameClaimed, StoreError."""
    key = node_key(cluster, mine.node)
    while True:
        item = store.get(key)
        if item is not None and (other := registration_of(item)).instance != mine.instance:
            raise NameClaimed(
                f"node {mine.node} is another host, at {_named(other.addresses)}, since {other.since}",
                remedy=f"give this host another name (`node` in its configuration); or end the other one, and then: "
                f"plumb node forget {mine.node}",
            )
        if store.compare_and_swap(key, mine.encoded(), item.revision if item else ABSENT, lease):
            return


def _named(addresses: Iterable[IpAddress]) -> str:
    return ", ".join(map(str, addresses)) or "an address that its manifest does not name"
