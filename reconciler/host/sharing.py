"""What this host shares with the others of its cluster: the store, what they say in it, and what this one says.

A daemon joins: it follows the store, registers its node and announces its endpoints for as long as it lives. Whoever
has not joined (a command) reads the store, allocates in it, and says nothing of itself.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reconciler import __version__
from reconciler.config import Config
from reconciler.engine.durable import replace_durably
from reconciler.errors import StoreError
from reconciler.host.hearing import Hearing, IpNetwork, Nodes
from reconciler.host.others import Others
from reconciler.host.remote import joined
from reconciler.model.cluster import Cluster, JoinedCluster, Node, StoreKind
from reconciler.model.facts import NO_REMOTE, Facts, RemoteEndpoints
from reconciler.model.snapshot import Snapshot
from reconciler.store.announcements import Announcement, differences, endpoint_key, of_node
from reconciler.store.identities import Identities
from reconciler.store.mirror import Mirror
from reconciler.store.mirror_file import MirrorFile
from reconciler.store.opening import open_store
from reconciler.store.protocol import Store
from reconciler.store.registrations import (
    NameClaimed,
    Registration,
    claim,
    node_key,
    registration_of,
)
from reconciler.store.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Joined:
    """What a daemon wants to be told, in threads of the store: `news` that others said something, `back` that the
    store is there again."""

    news: Callable[[], None]
    back: Callable[[], None]


class Sharing:
    """Of one cluster, until `close`. `store` is what all reads and writes go through."""

    def __init__(self, config: Config, cluster: Cluster, member: Joined | None = None) -> None:
        self._config = config
        self._cluster = cluster
        self._joined = member
        self.beneath: Store = open_store(cluster, config.store_file, config.store_credentials)
        is_here = cluster.store.kind is StoreKind.EMBEDDED
        file = None if is_here else MirrorFile(_mirror_path(config, cluster))
        self.store = Mirror(self.beneath, cluster.name, config.node, file, asked=["identities"] if is_here else [])
        self.identities = Identities(self.store, cluster.id, cluster.name, grace_s=cluster.store.ttl_s)
        self._own = Hearing(self.store, cluster.name, cluster.id, node=config.node)
        self._foreign = {one.name: self._foreign_hearing(one) for one in cluster.clusters}
        self._compared: dict[str, tuple[Nodes, Nodes, str]] = {}
        self._unheard: dict[str, str] = {}  # cluster -> why what it says cannot be read
        self._heard: tuple[tuple[RemoteEndpoints, ...], RemoteEndpoints] = ((), NO_REMOTE)
        self._registration: Registration | None = None
        self._session: Session | None = None
        self._refusal: NameClaimed | None = None
        self._told: dict[str, Announcement] | None = None
        if member is not None:
            self.store.follow(self._on_change)
            for hearing in self._foreign.values():
                hearing.store.follow(partial(self._on_foreign_change, hearing))

    def _foreign_hearing(self, other: JoinedCluster) -> Hearing:
        """Of another cluster, in which this host writes nothing."""
        there = replace(self._cluster, name=other.name, id=other.id, store=other.store)
        store = open_store(there, self._config.store_file, self._config.store_credentials)
        mirror = Mirror(store, other.name, "", MirrorFile(_mirror_path(self._config, there)))
        return Hearing(mirror, other.name, other.id, prefix=f"{other.name}/")

    def close(self) -> None:
        """What this node said stays until its lease ends: it may be back before that."""
        if self._session is not None:
            self._session.leave()
        self.store.close()
        for hearing in self._foreign.values():
            hearing.store.close()

    # What others say

    def others(self) -> Others:
        """As far as it is known now. Raises StoreError if nothing is."""
        own = self._own.nodes()
        columns, labels = self._own.endpoints()
        nodes, parts, known = [own], [columns], dict(labels)
        for name, hearing in self._foreign.items():
            try:
                theirs = hearing.nodes()
                if self._clash(name, own, theirs):
                    continue
                columns, labels = hearing.endpoints()
            except StoreError as error:  # what nobody knows is not let in
                self._not_heard(name, str(error))
                continue
            self._not_heard(name, "")
            nodes.append(theirs)
            parts.append(columns)
            known = {**labels, **known}
        if any(one is not other for one, other in zip_longest(parts, self._heard[0])):
            self._heard = (tuple(parts), joined(parts))
        registered = {name: one for part in nodes for name, one in part.registered.items()}
        registered.pop(self._config.node, None)
        cidrs = {name: pair for part in nodes for name, pair in part.cidrs.items()}
        return Others(registered, cidrs, self._heard[1], known)

    def _not_heard(self, name: str, reason: str) -> None:
        """`reason` is '' when the other cluster is heard."""
        if reason and reason != self._unheard.get(name):
            log.warning("nothing of cluster %s is known: %s", name, reason)
        self._unheard[name] = reason

    def _clash(self, name: str, own: Nodes, theirs: Nodes) -> str:
        """Why nothing of the other cluster is believed, '' if there is no reason."""
        if self._compared.get(name, ())[:2] != (own, theirs):
            shared = overlapping(theirs.networks(), own.networks())
            self._compared[name] = (own, theirs, f"its {shared} overlaps a CIDR of this cluster" if shared else "")
        return self._compared[name][2]

    def registered(self) -> Mapping[str, Registration]:
        """node -> what it says of itself, this one too. Raises StoreError."""
        return self._own.nodes().registered

    def forget(self, node: str) -> int:
        """How many keys that were. Raises StoreError."""
        name = self._cluster.name
        said = [item.key for item in self.store.range(of_node(name, node)).items]
        return sum(map(self.store.delete, [*said, node_key(name, node)]))

    def _on_change(self, keys: frozenset[str]) -> None:
        """In the mirror's thread; no keys: the store went or came."""
        assert self._joined is not None
        if not keys and self.store.state.connected:
            self._joined.back()
            return
        own = node_key(self._cluster.name, self._config.node)
        if own in keys:
            self._look_at_own(own)
        self._look_at_announced(keys)
        if self._own.take(keys):
            self._joined.news()

    def _on_foreign_change(self, hearing: Hearing, keys: frozenset[str]) -> None:
        assert self._joined is not None
        if hearing.take(keys):
            self._joined.news()

    def _look_at_own(self, key: str) -> None:
        item, mine, session = self.store.get(key), self._registration, self._session
        if mine is None or session is None:
            return
        if item is None or registration_of(item).instance != mine.instance:
            session.begin_again()
        if item is None and self._joined is not None:
            self._joined.back()  # a store that was lost, or is an older one now, has to be told everything

    def _look_at_announced(self, keys: frozenset[str]) -> None:
        """A store that is an older one now has endpoints that are gone, and lacks later ones; its lease may live."""
        mine, session = of_node(self._cluster.name, self._config.node), self._session
        if session is None or self._told is None:
            return
        items = {key: self.store.get(key) for key in keys if key.startswith(mine)}
        strange = session.found({key: item.value if item else None for key, item in items.items()})
        if strange and self._joined is not None:
            log.warning("the store has other endpoints of this node than were announced: they are announced again")
            self._joined.back()

    # What this host says

    def register(self, node: Node, direct_return: str) -> None:
        """This host is the node, from now on; without a store it says so later. Raises NameClaimed.

        Who has not joined registers nothing, and is refused nothing.
        """
        if self._joined is None:
            return
        mine = self._registration_of(node, direct_return)
        self._say(mine)
        if self._session is None:
            self._session = Session(self.beneath, self._cluster.store.ttl_s, claim=self._claim)
            self._put(mine)
        if self._refusal is not None:
            raise self._refusal

    def tell(self, direct_return: str) -> None:
        """What else this host says of itself stays; nothing where it has not registered."""
        if self._registration is not None:
            self._say(replace(self._registration, direct_return=direct_return))

    def _say(self, mine: Registration) -> None:
        if self._registration != mine:
            self._registration = mine
            self._put(mine)

    def _put(self, mine: Registration) -> None:
        if self._session is not None:
            self._session.put(node_key(self._cluster.name, mine.node), mine.encoded())

    def _claim(self, lease: int) -> None:
        assert self._registration is not None
        try:
            claim(self.beneath, self._cluster.name, self._registration, lease)
        except NameClaimed as refusal:
            self._refusal = refusal
            raise
        if self._refusal is not None and self._joined is not None:
            self._refusal = None
            self._joined.back()

    def _registration_of(self, node: Node, direct_return: str) -> Registration:
        addresses = tuple(one for one in (node.address4, node.address6) if one is not None)
        cidrs = tuple(one for one in (node.cidr4, node.cidr6) if one is not None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        own = _instance(self._config)
        fresh = Registration(node.name, own, addresses, cidrs, __version__, now, node.origin, direct_return)
        known = self._registration
        if known is not None and replace(fresh, since=known.since, origin=known.origin) == known:
            return known
        return fresh

    def announce(self, snapshot: Snapshot, facts: Facts) -> None:
        """What the node's workloads are now. Only differences are written; without a store they are written later."""
        if self._session is None:
            return
        name, node = self._cluster.name, self._config.node
        wanted = {
            endpoint_key(name, node, reference): _announcement(snapshot, facts, reference)
            for reference, endpoint in facts.endpoints.items()
            if endpoint.node == node
        }
        if self._told is None:  # what an earlier daemon of this node left goes when that one's lease ends
            left = (item.key for item in self.store.range(of_node(name, node)).items)
            changed: dict[str, Announcement | None] = {**dict.fromkeys(left), **wanted}
            self._told = wanted
        else:
            changed = differences(self._told, wanted)
            self._told = {key: one if key in changed else self._told[key] for key, one in wanted.items()}
        if changed:
            self._session.write({key: one.encoded() if one else None for key, one in changed.items()})

    # What nobody uses any more

    def collect(self, facts: Facts, now_s: float) -> None:
        """Give back identities that neither this host nor an announced endpoint uses. Raises StoreError.

        What the store says now counts: `facts` are behind it while what others say cannot be compiled.
        """
        if self._config.node == min(self.registered(), default=self._config.node):  # one host is enough
            announced, _ = self._own.endpoints()
            known = {*facts.identities, *facts.remote.rows["identity"].tolist()}
            self.identities.collect(known | {*announced.rows["identity"].tolist()}, now_s)

    # For people

    def status(self) -> dict[str, Any]:
        state, session = self.store.state, self._session
        connected = state.connected and (session is None or session.state.connected)
        since_s = state.since_s if not state.connected or session is None else session.state.since_s
        reason = state.reason or (session.state.reason if session else "")
        return {
            "kind": self._cluster.store.kind.value,
            "endpoints": list(self._cluster.store.endpoints),
            "state": "refused" if self._refusal else "connected" if connected else "unreachable",
            "since": datetime.fromtimestamp(since_s, UTC).isoformat(timespec="seconds"),
            "reason": "" if connected else str(self._refusal or reason),
            "clusters": [self._foreign_status(name, hearing) for name, hearing in self._foreign.items()],
        }

    def _foreign_status(self, name: str, hearing: Hearing) -> dict[str, Any]:
        state = hearing.store.state
        refused = self._compared[name][2] if name in self._compared else ""
        if state.connected:
            refused = refused or self._unheard.get(name, "")
        return {
            "cluster": name,
            "state": "refused" if refused else "connected" if state.connected else "unreachable",
            "since": datetime.fromtimestamp(state.since_s, UTC).isoformat(timespec="seconds"),
            "reason": refused or state.reason,
        }


def _announcement(snapshot: Snapshot, facts: Facts, reference: str) -> Announcement:
    workload, endpoint = snapshot.workloads[reference], facts.endpoints[reference]
    addresses = tuple(one for one in (endpoint.address4, endpoint.address6) if one is not None)
    origin = workload.origin
    return Announcement(
        addresses, endpoint.identity, frozenset(workload.ports), origin.path, origin.line, origin.commit
    )


def _mirror_path(config: Config, cluster: Cluster) -> Path:
    return config.state_directory / f"mirror-{quote(cluster.name, safe='')}.sqlite"


def _instance(config: Config) -> str:
    """What tells this host from another one of its name: drawn once, and kept beside the journal."""
    path = config.state_directory / "instance"
    if not path.exists():
        replace_durably(path, uuid.uuid4().hex.encode())
    return path.read_text().strip()


def overlapping(networks: Iterable[IpNetwork], others: Iterable[IpNetwork]) -> IpNetwork | None:
    """One of the networks that shares an address with one of the others. O(n log n)."""
    every = sorted([*((one, True) for one in networks), *((one, False) for one in others)], key=_by_place)
    before: IpNetwork | None = None
    ends = {True: -1, False: -1}  # the last address of either so far
    for network, ours in every:
        if before is None or before.version != network.version:
            ends = {True: -1, False: -1}
        if int(network.network_address) <= ends[not ours]:
            return network
        ends[ours] = max(ends[ours], int(network.broadcast_address))
        before = network
    return None


def _by_place(one: tuple[IpNetwork, bool]) -> tuple[int, int, int]:
    return one[0].version, int(one[0].network_address), one[0].prefixlen
