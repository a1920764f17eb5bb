"""What the tables of addresses, routes, rules and neighbours share: one dump a namespace, and deletion by echo.

A message that the kernel dumped, sent back as a deletion, names exactly the object it describes; so nothing of another
protocol number, and nothing that a key only resembles, is ever deleted.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.kernel.netlink import Message, Netlink, doing
from reconciler.kernel.netns import NamespaceMissing, is_own, refuse_own
from reconciler.model.network import HOST_NETNS

K = TypeVar("K", bound=Any)  # a key that has `netns`; the engine passes keys as mere hashables
R = TypeVar("R")
Found = tuple[R, bytes]  # a row, and the message it was read from
Ours = Callable[[], Mapping[K, list[Found[R]]]]

GONE = (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV)


class NetlinkTable(ABC, Generic[K, R]):
    """`namespaces` tells, at each read, which namespaces to look into besides the host's own."""

    name: str
    after: tuple[str, ...]
    key_type: type
    row_type: type
    flip: Flip | None = None
    deletion: int  # message type
    several: R  # how several objects under one key read

    def __init__(self, namespaces: Callable[[], Iterable[str]] = tuple) -> None:
        self._namespaces = namespaces

    def live(self, only: Collection[Any] | None = None) -> DictRows:
        """Our rows; those of a namespace that is missing are not there. Raises KernelError."""
        if only is None:
            places = {HOST_NETNS, *(path for path in self._namespaces() if not is_own(path))}
        else:
            only = frozenset(only)
            places = {key.netns for key in only}
        rows: dict[Key, R] = {}
        for netns in places:
            for key, row, _ in self._read_namespace(netns):
                if only is None or key in only:
                    rows[key] = self.several if key in rows else row
        return DictRows(rows)

    def write(self, upserts: Mapping[Any, R], deletes: Collection[Any]) -> None:
        """Raises KernelError: no such namespace or link, one that is the host's, or what is not ours is in the way."""
        for netns, keys in _by_namespace(self._ordered(upserts)).items():
            refuse_own(netns)
            with doing("open netlink", netns), Netlink(netns) as netlink:
                ours: Ours[K, R] = cache(lambda netlink=netlink: self._ours(netlink))
                for key in keys:
                    with doing(f"write {self.describe(key)}", netns):
                        self._put(netlink, key, upserts[key], ours)
        for netns, keys in _by_namespace(deletes).items():
            self._delete(netns, keys)

    @abstractmethod
    def describe(self, key: K) -> str: ...

    @abstractmethod
    def _read(self, netlink: Netlink) -> Iterator[tuple[K, R, bytes]]:
        """Key, row and message of each of our objects in the socket's namespace."""

    @abstractmethod
    def _put(self, netlink: Netlink, key: K, row: R, ours: Ours[K, R]) -> None:
        """Make the row be there. `ours()` is what was there before the first write, read when first called."""

    def _ordered(self, upserts: Mapping[K, R]) -> Iterable[K]:
        return upserts

    def _echo(self, body: bytes) -> bytes:
        """The dumped message in the form that its deletion wants."""
        return body

    def _remove(self, netlink: Netlink, found: Iterable[Found[R]]) -> None:
        for _, body in found:
            try:
                netlink.write(Message(self.deletion, 0, self._echo(body)))
            except OSError as error:
                if error.errno not in GONE:
                    raise

    def _ours(self, netlink: Netlink) -> Mapping[K, list[Found[R]]]:
        found: dict[K, list[Found[R]]] = {}
        for key, row, body in self._read(netlink):
            found.setdefault(key, []).append((row, body))
        return found

    def _read_namespace(self, netns: str) -> Iterator[tuple[K, R, bytes]]:
        try:
            with doing(f"read {self.name}", netns), Netlink(netns) as netlink:
                yield from self._read(netlink)
        except NamespaceMissing:
            return

    def _delete(self, netns: str, keys: Collection[K]) -> None:
        try:
            with doing(f"delete {self.name}", netns), Netlink(netns) as netlink:
                ours = self._ours(netlink)
                for key in keys:
                    self._remove(netlink, ours.get(key, ()))
        except NamespaceMissing:
            return


def _by_namespace(keys: Iterable[K]) -> dict[str, list[K]]:
    grouped: dict[str, list[K]] = {}
    for key in keys:
        grouped.setdefault(key.netns, []).append(key)
    return grouped
