"""What a node says of its workloads to the others: who has which address and which identity.

.../endpoints/<node>/<namespace>/<name>    the announcement, as JSON, under the node's lease
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, unquote

from reconciler.errors import StoreError
from reconciler.model.cluster import NamedPort
from reconciler.store.protocol import Item, root

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Announcement:
    """`path`, `line`: where the workload's manifest is at `commit`, the one at which it was announced like this."""

    addresses: tuple[IpAddress, ...]
    identity: int
    ports: frozenset[NamedPort]
    path: str
    line: int
    commit: str

    def encoded(self) -> bytes:
        ports = sorted((port.name, port.port, port.protocol) for port in self.ports)
        origin = [self.path, self.line, self.commit]
        value = {"a": [str(one) for one in self.addresses], "i": self.identity, "o": origin}
        return json.dumps({**value, "p": ports} if ports else value, separators=(",", ":")).encode()


def endpoints_prefix(cluster: str) -> str:
    return f"{root(cluster)}endpoints/"


def of_node(cluster: str, node: str) -> str:
    """What the keys of the node's endpoints begin with."""
    return f"{endpoints_prefix(cluster)}{quote(node, safe='')}/"


def endpoint_key(cluster: str, node: str, reference: str) -> str:
    namespace, _, name = reference.partition("/")
    return f"{of_node(cluster, node)}{quote(namespace, safe='')}/{quote(name, safe='')}"


def named_by(key: str) -> tuple[str, str]:
    """The node, and the reference of the workload."""
    node, namespace, name = key.rsplit("/", 3)[1:]
    return unquote(node), f"{unquote(namespace)}/{unquote(name)}"


def announcement_of(item: Item) -> Announcement:
    """Raises StoreError for what is none."""
    try:
        value = json.loads(item.value)
        path, line, commit = value["o"]
        ports = frozenset(NamedPort(*port) for port in value.get("p", ()))
        return Announcement(
            tuple(ip_address(one) for one in value["a"]), int(value["i"]), ports, path, int(line), commit
        )
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{item.key} in the store is not an endpoint: {error}") from error


def same_but_for_commit(one: Announcement, other: Announcement) -> bool:
    return (one.addresses, one.identity, one.ports, one.path, one.line) == (
        other.addresses,
        other.identity,
        other.ports,
        other.path,
        other.line,
    )


def differences(told: Mapping[str, Announcement], wanted: Mapping[str, Announcement]) -> dict[str, Announcement | None]:
    """key -> what has to be told so that what is told is what is wanted; None: that it is gone."""
    gone = dict.fromkeys(told.keys() - wanted.keys())
    return gone | {
        key: one for key, one in wanted.items() if key not in told or not same_but_for_commit(told[key], one)
    }
