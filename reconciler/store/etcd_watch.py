"""A watch that goes on where it was, whichever server of an etcd cluster dies, hangs or loses its leader.

A thread reads the stream. What comes in one response are whole revisions (etcd mvcc/watchable_store.go), so a new
stream begins after the last revision that was seen, and nothing is missed or comes twice.
"""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue
from typing import Any

import grpc

from reconciler.errors import ChangesMissed, StoreError
from reconciler.store.etcd_client import etcdrpc
from reconciler.store.etcd_keys import event, prefix_range
from reconciler.store.etcd_servers import Server, Servers, plain, remedy
from reconciler.store.protocol import Event

log = logging.getLogger(__name__)

MOST_WAITING = 200_000  # events that nobody has polled
RETRY_S = 0.2
NEEDS_LEADER = (("hasleader", "true"),)  # a server without one ends the stream (etcd api/v3rpc/rpctypes/md.go)


class EtcdWatch:
    """A Watch below `prefix`, of what comes after `revision`."""

    def __init__(self, servers: Servers, prefix: str, revision: int) -> None:
        self._servers = servers
        self._prefix = prefix
        self._next = revision + 1
        self._waiting: list[Event] = []
        self._failure: StoreError | None = None
        self._arrived = threading.Condition()
        self._closed = threading.Event()
        self._stream: Any = None
        self._thread = threading.Thread(target=self._follow, name="etcd-watch", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float) -> list[Event]:
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._failure, timeout_s)
            if self._failure and not self._waiting:
                raise self._failure
            events, self._waiting = self._waiting, []
            return events

    def close(self) -> None:
        with self._arrived:
            self._closed.set()
            if self._stream is not None:
                self._stream.cancel()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended():
            server = self._servers.current
            try:
                self._read(server)
            except grpc.RpcError as error:
                if (failure := self._servers.failure(error)) is not None:
                    self._fail(failure)
            except (StoreError, ValueError) as error:  # ValueError: the channel is closed
                log.debug("watch of %s interrupted: %s", self._prefix, error)
            self._servers.turn_from(server)
            self._closed.wait(0 if self._ended() else RETRY_S)

    def _ended(self) -> bool:
        if self._servers.closed.is_set() and self._failure is None:
            self._fail(StoreError(f"{self._servers}: the store is closed"))
        return self._closed.is_set() or self._failure is not None

    def _fail(self, error: StoreError) -> None:
        with self._arrived:
            self._failure = error
            self._arrived.notify_all()

    def _read(self, server: Server) -> None:
        """Until the stream ends, by an error of gRPC, or the watch."""
        requests: SimpleQueue[Any] = SimpleQueue()  # held open: etcd ends a watch whose requests have ended
        requests.put(self._request())
        with self._arrived:
            if self._closed.is_set():
                return
            self._stream = server.watches.Watch(iter(requests.get, None), metadata=NEEDS_LEADER)
        try:
            for response in self._stream:
                self._take(response)
                if self._ended():
                    return
        finally:
            requests.put(None)
            self._stream.cancel()

    def _request(self) -> Any:
        start, end = prefix_range(self._prefix)
        create = etcdrpc.WatchCreateRequest(key=start, range_end=end, start_revision=self._next)
        return etcdrpc.WatchRequest(create_request=create)

    def _take(self, response: Any) -> None:
        if response.canceled:
            self._fail(self._cancelled(response))
        elif response.created and response.header.revision < self._next - 1:
            self._check_history()
        elif response.events:
            self._hand_over([event(change) for change in response.events])

    def _hand_over(self, events: list[Event]) -> None:
        self._next = events[-1].revision + 1
        with self._arrived:
            self._waiting += events
            self._arrived.notify_all()
        if len(self._waiting) > MOST_WAITING:
            self._fail(ChangesMissed(f"more than {MOST_WAITING} changes below {self._prefix} wait to be polled"))

    def _check_history(self) -> None:
        """This server is behind what we have seen: it may be slow, or the whole cluster was restored from a backup."""
        request = etcdrpc.RangeRequest(key=b"\0", count_only=True)
        newest = self._servers.call(lambda client, timeout: client.kvstub.Range(request, timeout)).header.revision
        if newest < self._next - 1:
            text = f"{self._servers} went back from revision {self._next - 1} to {newest}: was it restored?"
            self._fail(ChangesMissed(text))

    def _cancelled(self, response: Any) -> StoreError:
        if response.compact_revision:
            return ChangesMissed(
                f"changes up to {response.compact_revision} are forgotten, the watch stands at {self._next - 1}"
            )
        words = plain(response.cancel_reason)
        return StoreError(f"{self._servers} refuses to watch {self._prefix}: {words}", remedy=remedy(words))
