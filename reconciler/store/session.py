"""What a daemon says of itself for as long as it lives: keys under one lease, which a thread keeps alive.

A session is told what its keys shall be, not what to do. When the lease has ended (the store could not be reached for
longer than it lasts), a new one is taken and everything is put again under it; what was told meanwhile too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from reconciler.errors import LeaseEnded, StoreError
from reconciler.store.protocol import Store

log = logging.getLogger(__name__)

TTL_S = 15.0
RETRY_S = 1.0  # while the store cannot be reached


@dataclass(frozen=True, slots=True)
class SessionState:
    """`since_s`: seconds since the epoch; `reason`: the first error of the loss, '' while there is a connection."""

    connected: bool
    since_s: float
    reason: str = ""


class Session:
    """Keys in `store` that go when this process does. Its methods may be called from several threads.

    `claim` is called with every new lease before anything is written under it; while it raises StoreError nothing is.
    `changed` is called with every new state, by the thread that found it. Neither may call the session.
    """

    def __init__(
        self,
        store: Store,
        ttl_s: float = TTL_S,
        *,
        claim: Callable[[int], None] | None = None,
        changed: Callable[[SessionState], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Tries to reach the store once; where it cannot, the session begins as lost."""
        self._store = store
        self._ttl_s = ttl_s
        self._claim = claim or (lambda lease: None)
        self._changed = changed
        self._clock = clock
        self._asking = threading.Lock()  # one thread at a time asks the store
        self._lock = threading.Lock()  # of what follows; never held while the store is asked
        self._wanted: dict[str, bytes] = {}
        self._unwritten: set[str] = set()
        self._lease: int | None = None
        self._state = SessionState(False, clock())
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._again = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._keep, name="store-session", daemon=True)
        self._thread.start()

    @property
    def state(self) -> SessionState:
        return self._state

    @property
    def lease(self) -> int | None:
        """The lease as it is now, for keys that the caller claims itself; None while there is none."""
        return self._lease

    def put(self, key: str, value: bytes) -> bool:
        """The key shall be there. Whether it is in the store already: if not, it will be once that can be reached."""
        return self.write({key: value})

    def delete(self, key: str) -> bool:
        return self.write({key: None})

    def write(self, writes: Mapping[str, bytes | None]) -> bool:
        """Many keys at once (None deletes), in as few transactions as the store allows.

        Waits for the store only while the session is connected.
        """
        with self._lock:
            for key, value in writes.items():
                self._unwritten.add(key)
                if value is None:
                    self._wanted.pop(key, None)
                else:
                    self._wanted[key] = value
        return self._state.connected and self._guarded(self._flush)

    def begin_again(self) -> None:
        """A new lease, and everything put again under it: somebody has taken keys away. Returns at once."""
        self._again.set()
        self._wake.set()

    def found(self, there: Mapping[str, bytes | None]) -> bool:
        """Whether somebody has changed keys of this session (None: the key is gone): then it begins again with them.

        A key that is still to be written is not looked at, it will be found again. Returns at once.
        """
        with self._lock:
            strange = {
                key for key, value in there.items() if key not in self._unwritten and self._wanted.get(key) != value
            }
            self._unwritten |= strange
        if strange:
            self.begin_again()
        return bool(strange)

    def leave(self) -> None:
        """Ends the session and leaves its keys for as long as the lease lasts: for who will be back before that."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def close(self) -> None:
        """Ends the lease, and its keys with it; where the store cannot be reached they go when the lease ends."""
        self.leave()
        with self._asking:
            lease, self._lease = self._lease, None
            if lease is None:
                return
            try:
                self._store.revoke(lease)
            except StoreError as error:
                log.warning("session not revoked, its keys go in %.0f s: %s", self._ttl_s, error)

    def _keep(self) -> None:
        while not self._stop.is_set():
            connected = self._state.connected
            self._wake.wait(self._ttl_s / 3 if connected else RETRY_S)
            self._wake.clear()
            if not (self._stop.is_set() or (connected and not self._state.connected)):  # a write found it lost: pause
                self._beat()

    def _beat(self) -> None:
        self._guarded(self._keep_alive)

    def _keep_alive(self) -> None:
        if self._again.is_set():
            self._again.clear()
            self._forget_lease()
        if self._lease is not None:
            try:
                self._store.keep_alive(self._lease)
            except LeaseEnded:
                self._forget_lease()
        self._flush()

    def _flush(self) -> None:
        """Writes what is not written; a lease that turns out to have ended is replaced."""
        try:
            self._write_all()
        except LeaseEnded:
            self._forget_lease()
            self._write_all()

    def _write_all(self) -> None:
        if self._lease is None:
            lease = self._store.lease(self._ttl_s)
            self._claim_with(lease)
            self._lease = lease
        while part := self._next_part():
            self._store.transact({}, part, self._lease)
            self._settle(part)

    def _next_part(self) -> dict[str, bytes | None]:
        with self._lock:
            return {key: self._wanted.get(key) for key in islice(self._unwritten, self._store.max_writes)}

    def _settle(self, part: Mapping[str, bytes | None]) -> None:
        """What was told again while it was written stays to be written."""
        with self._lock:
            self._unwritten -= {key for key, value in part.items() if self._wanted.get(key) == value}

    def _claim_with(self, lease: int) -> None:
        try:
            self._claim(lease)
        except StoreError:
            with suppress(StoreError):
                self._store.revoke(lease)
            raise

    def _forget_lease(self) -> None:
        self._lease = None
        with self._lock:
            self._unwritten.update(self._wanted)

    def _guarded(self, action: Callable[[], None]) -> bool:
        with self._asking:
            try:
                action()
            except StoreError as error:
                self._become(False, str(error))
                return False
            self._become(True, "")
            return True

    def _become(self, connected: bool, reason: str) -> None:
        if connected == self._state.connected and (connected or self._state.reason):
            return
        self._state = SessionState(connected, self._clock(), reason)
        if connected:
            log.info("store session connected, %d keys", len(self._wanted))
        else:
            log.warning("store session lost: %s", reason)
            self._wake.set()
        if self._changed:
            self._changed(self._state)
