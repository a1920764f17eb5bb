"""The store of a cluster of hosts: etcd. Safe with several threads; every call ends within a few seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import grpc

from reconciler.errors import LeaseEnded, StoreError
from reconciler.store.etcd_client import etcdrpc
from reconciler.store.etcd_keys import encoded, item, prefix_range, unchanged, written
from reconciler.store.etcd_servers import Servers
from reconciler.store.etcd_watch import EtcdWatch
from reconciler.store.protocol import Item, Snapshot

PAGE = 10_000  # items of one answer: some MB, well within a call's time
ATTEMPTS = 3  # to read a range that is compacted while its pages are read

T = TypeVar("T")


class Gate(Protocol):
    def __call__(self, *, writes: bool) -> None: ...


class _Compacted(Exception):
    """The revision of a range's first page is forgotten."""


class EtcdStore:
    """A Store in `servers`, which it closes. `gate` is called before everything else, and told whether that writes."""

    max_writes = 128  # etcd --max-txn-ops

    def __init__(self, servers: Servers, gate: Gate | None = None) -> None:
        self._servers = servers
        self._gate = gate

    def get(self, key: str) -> Item | None:
        request = etcdrpc.RangeRequest(key=encoded(key))
        answer = self._call(lambda client, timeout: client.kvstub.Range(request, timeout))
        return item(answer.kvs[0]) if answer.kvs else None

    def range(self, prefix: str) -> Snapshot:
        """In pages of one revision, so that no answer is too large for its time."""
        for _ in range(ATTEMPTS):
            try:
                return self._pages(prefix)
            except _Compacted:
                continue
        raise StoreError(f"{self._servers} was compacted {ATTEMPTS} times while {prefix} was read")

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        request = etcdrpc.PutRequest(key=encoded(key), value=value, lease=lease or 0)
        answer = self._call(lambda client, timeout: client.kvstub.Put(request, timeout), writes=True)
        return int(answer.header.revision)

    def delete(self, key: str) -> bool:
        request = etcdrpc.DeleteRangeRequest(key=encoded(key))
        answer = self._call(lambda client, timeout: client.kvstub.DeleteRange(request, timeout), writes=True)
        return bool(answer.deleted)

    def compare_and_swap(self, key: str, value: bytes | None, revision: int, lease: int | None = None) -> bool:
        return self.transact({key: revision}, {key: value}, lease)

    def transact(
        self, expected: Mapping[str, int], writes: Mapping[str, bytes | None], lease: int | None = None
    ) -> bool:
        """Without conditions it may be repeated; with them, an answer that got lost is a StoreError."""
        if max(len(expected), len(writes)) > self.max_writes:
            raise StoreError(f"{len(writes)} writes at once, {self.max_writes} are allowed")
        request = etcdrpc.TxnRequest(
            compare=[unchanged(key, revision) for key, revision in expected.items()],
            success=[written(key, value, lease) for key, value in writes.items()],
        )
        answer = self._call(
            lambda client, timeout: client.kvstub.Txn(request, timeout), repeatable=not expected, writes=True
        )
        return bool(answer.succeeded)

    def watch(self, prefix: str, revision: int) -> EtcdWatch:
        return EtcdWatch(self._servers, prefix, revision)

    def lease(self, ttl_s: float) -> int:
        """Whole seconds, and at least what etcd allows: 1.5 times its election timeout."""
        request = etcdrpc.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s)))
        answer = self._call(lambda client, timeout: client.leasestub.LeaseGrant(request, timeout))
        return int(answer.ID)

    def keep_alive(self, lease: int) -> None:
        request = etcdrpc.LeaseKeepAliveRequest(ID=lease)
        answers = self._call(
            lambda client, timeout: list(client.leasestub.LeaseKeepAlive(iter([request]), timeout)), repeatable=True
        )
        if not answers or answers[0].TTL <= 0:  # etcd's way to say that there is no such lease
            raise LeaseEnded(f"lease {lease} has ended")

    def revoke(self, lease: int) -> None:
        request = etcdrpc.LeaseRevokeRequest(ID=lease)
        try:
            self._call(lambda client, timeout: client.leasestub.LeaseRevoke(request, timeout))
        except LeaseEnded:
            return

    def close(self) -> None:
        self._servers.close()

    def _pages(self, prefix: str) -> Snapshot:
        key, end = prefix_range(prefix)
        items: list[Item] = []
        revision = 0
        while True:
            answer = self._page(etcdrpc.RangeRequest(key=key, range_end=end, limit=PAGE, revision=revision))
            revision = revision or int(answer.header.revision)
            items += map(item, answer.kvs)
            if not answer.more:
                return Snapshot(tuple(items), revision)
            key = answer.kvs[-1].key + b"\0"

    def _page(self, request: Any) -> Any:
        def ask(client: Any, timeout: float) -> Any:
            try:
                return client.kvstub.Range(request, timeout)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE and request.revision:
                    raise _Compacted from error
                raise

        return self._call(ask)

    def _call(self, ask: Callable[[Any, float], T], *, repeatable: bool = True, writes: bool = False) -> T:
        if self._gate is not None:
            self._gate(writes=writes)
        return self._servers.call(ask, repeatable=repeatable)
