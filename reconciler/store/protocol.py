"""The store that hosts share, as small as etcd and SQLite can both be.

Keys are text, values are octets. Every change of the store has a revision, a number that only grows; an item carries
the revision that wrote it, and that is what a compare-and-swap compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

ABSENT = 0  # the revision of a key that is not there


@dataclass(frozen=True, slots=True)
class Item:
    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`items` by key, and the revision of the whole store that they were read at: where to watch from."""

    items: tuple[Item, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """`value` is None for a deleted key."""

    key: str
    value: bytes | None
    revision: int


class Watch(Protocol):
    def poll(self, timeout_s: float) -> list[Event]:
        """What changed since the last poll, in the order of revisions; waits for at most `timeout_s`.

        All events of one revision come together. While the store cannot be reached nothing comes, and the watch goes
        on where it was once it can. Raises ChangesMissed if it cannot go on there (the store forgets old changes):
        then read the range and watch anew.
        """
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """Every method raises StoreError where the store cannot be read or written.

    max_writes    most writes of one `transact`
    """

    max_writes: int

    def get(self, key: str) -> Item | None: ...

    def range(self, prefix: str) -> Snapshot: ...

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        """The revision of the change. The key goes when its lease ends."""
        ...

    def delete(self, key: str) -> bool:
        """Whether it was there."""
        ...

    def compare_and_swap(self, key: str, value: bytes | None, revision: int, lease: int | None = None) -> bool:
        """Write `value` (None deletes) if the key still has this revision, ABSENT if it must not be there."""
        ...

    def transact(
        self, expected: Mapping[str, int], writes: Mapping[str, bytes | None], lease: int | None = None
    ) -> bool:
        """All `writes` (None deletes) if every key of `expected` has its revision (ABSENT: is not there), or none."""
        ...

    def watch(self, prefix: str, revision: int) -> Watch:
        """Changes below `prefix` after `revision`."""
        ...

    def lease(self, ttl_s: float) -> int:
        """A lease that ends after `ttl_s` without `keep_alive`."""
        ...

    def keep_alive(self, lease: int) -> None:
        """Raises LeaseEnded if it has ended."""
        ...

    def revoke(self, lease: int) -> None:
        """End the lease and delete its keys; success if it has ended already."""
        ...

    def close(self) -> None: ...


def root(cluster: str) -> str:
    """What the keys of a cluster begin with that every host follows: each change is passed on to each of them.

    The version rises with any incompatible change of what is stored.
    """
    return f"/plumbline/v1/{quote(cluster, safe='')}/"


def unfollowed(cluster: str) -> str:
    """What the keys of a cluster begin with that are for who asks: all hosts write them, few read them."""
    return f"/plumbline/v1/{quote(cluster, safe='')}:unfollowed/"
