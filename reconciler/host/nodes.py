"""The cluster's nodes for people: what manifests say of them, and what they say themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.engine.values import to_plain
from reconciler.host.target import Target
from reconciler.model.cluster import Node
from reconciler.model.facts import Peer
from reconciler.store.registrations import Registration


def nodes_shown(target: Target, registered: Mapping[str, Registration]) -> Iterator[dict[str, Any]]:
    """By name. `state`: here, alive, or silent if the store has nothing of it."""
    facts, remote = target.facts, target.facts.remote
    counts = Counter(one.node for one in facts.endpoints.values())
    counts += Counter(remote.nodes[place] for place in set(remote.rows["endpoint"].tolist()))
    known: dict[str, Node | Peer] = {**facts.peers, facts.node: target.snapshot.nodes[facts.node]}
    for name, node in sorted(known.items()):
        said = registered.get(name)
        yield {
            "node": name,
            "state": "here" if name == facts.node else "alive" if said else "silent",
            "addresses": [str(one) for one in (node.address4, node.address6) if one],
            "cidrs": [str(one) for one in (node.cidr4, node.cidr6) if one],
            "endpoints": counts[name],
            "version": said.version if said else "",
            "since": said.since if said else "",
            "direct_return": said.direct_return if said else "",
            "origin": to_plain(node.origin),
        }
