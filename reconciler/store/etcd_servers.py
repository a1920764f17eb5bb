"""The servers of one etcd cluster: which of them is asked, for how long, and when another one is tried.

Each server has its own channel, so that its certificate is checked against its own name. A call that got no answer is
repeated at the next server where repeating is harmless, or where the first server cannot have taken it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from reconciler.errors import LeaseEnded, StoreError
from reconciler.store.credentials import Credentials
from reconciler.store.etcd_client import Etcd3Client, etcdrpc
from reconciler.store.etcd_diagnosis import diagnose

TIMEOUT_S = 4.0  # of a whole call; finding out why it failed may add one more second
ATTEMPT_S = 2.0  # of one server, where there are several
PAUSE_S = 0.1  # after all of them were tried

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # 4 MB otherwise
    # A hung server is noticed in 8 s by a stream; all four are needed, and under 5 s etcd hangs up
    # (etcd server/embed/config.go, DefaultGRPCKeepAliveMinTime).
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that is back is found soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),  # the environment's proxy is for the web
    ("grpc.use_local_subchannel_pool", 1),
)
_FINAL = (  # ends of a stream after which another try is useless
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
_TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# No server has taken these: gRPC had no connection, or etcd's own limit stopped it before the raft log
# (etcd api/v3rpc/rpctypes/error.go).
_NOT_TAKEN = ("failed to connect", "DNS resolution failed", "no leader", "too many requests")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    client: Any  # Etcd3Client
    watches: Any  # WatchStub

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Servers:
    """`endpoints` are `host:port`; their order is the order in which they are tried."""

    def __init__(self, endpoints: Sequence[str], credentials: Credentials | None = None) -> None:
        """Connects to nothing yet. Raises StoreError if a file of `credentials` cannot be read."""
        self._credentials = credentials
        if credentials is not None:
            credentials.read()
        self._servers = tuple(_server(endpoint, credentials) for endpoint in endpoints)
        self._turns = 0
        self._lock = threading.Lock()
        self._reached = True  # by the last call: one that follows a failure does not wait as long
        self._reason = ""
        self.closed = threading.Event()

    def __str__(self) -> str:
        return "etcd at " + ", ".join(map(str, self._servers))

    @property
    def current(self) -> Server:
        return self._servers[self._turns % len(self._servers)]

    def turn_from(self, server: Server) -> None:
        """The next server is the current one, unless somebody else has turned already."""
        with self._lock:
            if self.current is server:
                self._turns += 1

    def call(self, ask: Callable[[Any, float], T], *, repeatable: bool = True) -> T:
        """What `ask(client, timeout_s)` answers. Raises StoreError after `TIMEOUT_S` at the latest."""
        deadline = time.monotonic() + TIMEOUT_S
        attempts = 0
        while True:
            server = self.current
            left = deadline - time.monotonic()
            try:
                answer = ask(server.client, left if self._reached and len(self._servers) == 1 else min(left, ATTEMPT_S))
            except grpc.RpcError as error:
                if self.closed.is_set() or error.code() is grpc.StatusCode.CANCELLED:
                    raise StoreError(f"{self}: the store is closed") from error
                if error.code() not in _TRANSIENT and "too many requests" not in _words(error):
                    raise self._refused(server, error) from error
                self.turn_from(server)
                if not (repeatable or any(words in _words(error) for words in _NOT_TAKEN)):
                    raise self._unknown(server, error) from error
                attempts += 1
                if self._spent(attempts, deadline):
                    raise self._unreachable(error) from error
            except ValueError as error:  # grpc: "Cannot invoke RPC on closed channel!"
                raise StoreError(f"{self}: the store is closed") from error
            else:
                self._reached = True
                return answer

    def close(self) -> None:
        self.closed.set()
        for server in self._servers:
            server.client.close()

    def failure(self, error: grpc.RpcError) -> StoreError | None:
        """What a stream's end means: None where another try may help."""
        return self._refused(self.current, error) if error.code() in _FINAL else None

    def _spent(self, attempts: int, deadline: float) -> bool:
        """Whether the call gives up; pauses between rounds over all servers."""
        if attempts % len(self._servers) == 0:
            if not self._reached:
                return True
            self.closed.wait(PAUSE_S)
        return time.monotonic() >= deadline

    def _unreachable(self, error: grpc.RpcError) -> StoreError:
        if self._reached:
            with ThreadPoolExecutor(len(self._servers)) as pool:
                self._reason = "; ".join(pool.map(self._diagnosis, self._servers))
        self._reached = False
        return StoreError(
            f"{self} cannot be reached: {self._reason}",
            remedy="check that etcd runs and has a leader, `spec.store.endpoints` of the Cluster, and store_ca, "
            "store_cert, store_key in this host's configuration",
        )

    def _diagnosis(self, server: Server) -> str:
        found = diagnose(server.host, server.port, self._credentials)
        return f"{server}: {found or 'it answers, but has no leader or is too slow'}"

    def _unknown(self, server: Server, error: grpc.RpcError) -> StoreError:
        return StoreError(
            f"etcd at {server} was lost during a write ({_words(error)}), which it may have made or not",
            remedy="read again, and decide anew",
        )

    def _refused(self, server: Server, error: grpc.RpcError) -> StoreError:
        words = _words(error)
        if error.code() is grpc.StatusCode.NOT_FOUND and "lease" in words:
            return LeaseEnded(f"etcd at {server}: the lease has ended")
        return StoreError(f"etcd at {server}: {words}", remedy=remedy(words))


def _server(endpoint: str, credentials: Credentials | None) -> Server:
    host, _, port = endpoint.rpartition(":")
    files = {}
    if credentials is not None:
        files = {"ca_cert": credentials.ca, "cert_cert": credentials.cert, "cert_key": credentials.key}
    client = Etcd3Client(host=host, port=int(port), grpc_options=_OPTIONS, **files)
    return Server(host.strip("[]"), int(port), client, etcdrpc.WatchStub(client.channel))


def _words(error: grpc.RpcError) -> str:
    return plain(str(error.details() or error.code().name))


def plain(words: str) -> str:
    """etcd's own words, without whose they are and how gRPC prints them."""
    return words.rpartition("etcdserver: ")[2]


def remedy(words: str) -> str:
    """What to do after etcd has refused something with these words."""
    if "permission denied" in words or "user name is empty" in words or "auth token" in words:
        return "grant the user that is this host's certificate's CN a role for the keys below /plumbline/"
    if "space exceeded" in words:
        return "compact and defragment etcd, raise its --quota-backend-bytes, and disarm its alarm"
    if "too large" in words:
        return "raise etcd's --max-request-bytes"
    return "see etcd's log"
