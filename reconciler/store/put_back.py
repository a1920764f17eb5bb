"""What a store had and has no more is put back by the hosts that still know it, before anything is drawn anew.

A store may come back empty, or as an older backup: what was handed out since would be handed out again, and to others,
while packets flow by it. Each host puts back what is its own, its CIDRs and the addresses of its workloads, and what
all of them know: identities, services' addresses, the CIDRs of other nodes. Who comes second finds it there.

What goes with a host's lease is not put back here: each host says that of itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import quote

from reconciler.store.protocol import ABSENT, Item, Snapshot, Store

log = logging.getLogger(__name__)

SHARED = (
    "layout",
    "node-cidrs/turn",
    "service-addresses/",
    "node-ports",
)  # put back where they are absent, each key for itself
Items = Mapping[str, Item]
Writes = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Lost:
    """Keys that belong together are in one of `together`; none is written unless all have the revisions of `there`.

    `known`: what a host knew. `node`: that host's. `root`: what the cluster's keys begin with.
    """

    root: str
    node: str
    known: Items
    there: Items

    def together(self) -> Iterator[Writes]:
        """CIDRs come before the addresses that are in them."""
        yield from ({key: value} for key, value in self._cidrs())
        own = f"{self.root}addresses/{quote(self.node, safe='')}/"
        of_age = sorted((item for key, item in self.known.items() if key.startswith(own)), key=lambda one: one.revision)
        yield from ({item.key: item.value} for item in of_age if self._is_older(item))
        yield from self._identities()
        for prefix in SHARED:
            yield from ({key: self.known[key].value} for key in self._absent(self.root + prefix))

    def expected(self, keys: Iterable[str]) -> dict[str, int]:
        """What must not have changed. A CIDR is claimed under the turn: two must not overlap."""
        needed = set(keys)
        if any(key.startswith(f"{self.root}node-cidrs/") for key in needed):
            needed.add(f"{self.root}node-cidrs/turn")
        return {key: self.there[key].revision if key in self.there else ABSENT for key in needed}

    def _absent(self, prefix: str) -> list[str]:
        return sorted(key for key in self.known if key.startswith(prefix) and key not in self.there)

    def _is_older(self, item: Item) -> bool:
        """Whether the store has less than this: nothing, or what was written before."""
        found = self.there.get(item.key)
        return found is None or (found.revision < item.revision and found.value != item.value)

    def _cidrs(self) -> Iterator[tuple[str, bytes]]:
        """Those of this node, and those of others that are absent; none that somebody else has now."""
        prefix = f"{self.root}node-cidrs/nodes/"
        own = prefix + quote(self.node, safe="")
        taken = {key: _networks(item) for key, item in self.there.items() if key.startswith(prefix)}
        lost = [own] if own in self.known and self._is_older(self.known[own]) else []
        for key in lost + [one for one in self._absent(prefix) if one != own]:
            wanted = _networks(self.known[key])
            others = [network for other, networks in taken.items() if other != key for network in networks]
            if clash := next((one for one in wanted for other in others if _overlap(one, other)), None):
                log.error("the store came back without %s, and %s of it is another node's now", key, clash)
                continue
            taken[key] = wanted
            yield key, self.known[key].value

    def _identities(self) -> Iterator[Writes]:
        """Both keys of one (identities.py), where it has neither: a number that was given anew is somebody else's."""
        for key in self._absent(f"{self.root}identities/"):
            before, kind, _ = key.rpartition("label-sets/")
            number = f"{before}numbers/{self.known[key].value.decode(errors='replace')}"
            if kind and number in self.known and number not in self.there:
                yield {key: self.known[key].value, number: self.known[number].value}


def put_back(store: Store, root: str, node: str, known: Items, there: Snapshot) -> bool:
    """Whether there was something to put back; then the store has to be read again, and this asked again.

    Nothing, unless the store shows that it is not what it was. Raises StoreError.
    """
    found = {item.key: item for item in there.items}
    if not went_back(root, known, found, there.revision):
        return False
    lost = Lost(root, node, known, found)
    groups = list(lost.together())
    if groups:
        log.warning("the store has lost what it had: %d records are put back", len(groups))
    size = max(1, store.max_writes // 2)  # none has more than two keys
    for start in range(0, len(groups), size):
        part = groups[start : start + size]
        writes: dict[str, bytes | None] = {key: value for one in part for key, value in one.items()}
        if not store.transact(lost.expected(writes), writes):
            break
    return bool(groups)


def went_back(root: str, known: Items, there: Items, revision: int) -> bool:
    """Whether this cannot be a later state of what was `known`: a revision only ever grows, and the layout stays."""
    if not known:
        return False
    if f"{root}layout" in known and f"{root}layout" not in there:
        return True
    if revision < max(item.revision for item in known.values()):
        return True
    return any(item.revision < known[key].revision for key, item in there.items() if key in known)


def _networks(item: Item) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(text) for text in json.loads(item.value)]
    except (ValueError, TypeError):
        return []


def _overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return one.version == other.version and one.overlaps(other)
