"""A cluster's part of a store, kept in memory: reads are answered from here, writes go through.

A thread reads everything once and then follows what changes, through every loss of the store; what is known is kept in
a file too, for a start while the store is away. Whoever writes here reads its own write afterwards, and whoever lost a
compare-and-swap reads what won: so what is allocated on top of this is as right as on the store itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

from reconciler.errors import ChangesMissed, LeaseEnded, StoreError
from reconciler.store.mirror_file import MirrorFile
from reconciler.store.protocol import ABSENT, Event, Item, Snapshot, Store, Watch, root
from reconciler.store.put_back import put_back

log = logging.getLogger(__name__)

POLL_S = 0.2
PROBE_S = 5.0  # without a change: is the store there?
RETRY_S = 1.0
SAVE_S = 1.0  # how much a crash may cost the file
CATCH_UP_S = 2.0  # after that a key that was written is asked for

Changed = Callable[[frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class MirrorState:
    """`since_s`: seconds since the epoch, by this host's clock; `reason`: why the store cannot be reached."""

    connected: bool
    since_s: float
    reason: str = ""


class Mirror:
    """A Store over what lies below the `cluster`'s root in `store`; of addresses only those of `node`, and none of the
    sections that are `asked` for: of a store on this host, which answers nearly as fast as memory would.

    Without `follow` reads ask the store, and the file only where that fails. Safe with several threads.
    `node`: '' for who only listens. Others put back what the store has lost before they go by what it says.
    """

    def __init__(
        self, store: Store, cluster: str, node: str, file: MirrorFile | None = None, asked: Collection[str] = ()
    ) -> None:
        self.max_writes = store.max_writes
        self.root = root(cluster)
        self._store = store
        self._node = node
        self._skipped = f"{self.root}addresses/"
        self._own = f"{self._skipped}{quote(node, safe='')}/"
        self._asked = tuple(f"{self.root}{section}/" for section in asked)
        self._file = file
        self._changed: Changed = lambda keys: None
        self._condition = threading.Condition()
        self._sections: dict[str, dict[str, Item]] = {}
        self._sorted: dict[str, list[str]] = {}
        self._revision = 0
        self._unsaved: set[str] = set()
        self._following = False  # whether memory is what the store said
        self._remembering = False  # whether the file was read
        self._state = MirrorState(True, time.time())
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, changed: Changed) -> None:
        """From now on; `changed` gets the keys of every change, in a thread of the mirror's."""
        self._changed = changed
        if self._remember():
            with suppress(StoreError):  # the thread tries again
                self._whole()  # before somebody reads the store itself, and draws from it
        self._thread = threading.Thread(target=self._run, name="store-mirror", daemon=True)
        self._thread.start()

    @property
    def state(self) -> MirrorState:
        return self._state

    @property
    def synchronised(self) -> bool:
        """Whether the store has said once what there is."""
        return self._following

    def close(self) -> None:
        """Closes the store as well."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            self._save()
            self._file.close()
        self._store.close()

    # Reads

    def get(self, key: str) -> Item | None:
        if self._is_kept(key):
            with self._condition:
                if self._following:
                    return self._at(key)
        try:
            with self._asking():
                return self._store.get(key)
        except StoreError:
            if not self._is_kept(key) or not self._remember():
                raise
            with self._condition:
                return self._at(key)

    def range(self, prefix: str) -> Snapshot:
        kept = self._is_kept(prefix)
        if kept:
            with self._condition:
                if self._following:
                    return self._below(prefix)
        try:
            with self._asking():
                return self._store.range(prefix)
        except StoreError:
            if not kept or not self._remember():
                raise
            with self._condition:
                return self._below(prefix)

    def _at(self, key: str) -> Item | None:
        return self._sections.get(self._section(key), {}).get(key)

    def _below(self, prefix: str) -> Snapshot:
        section = self._section(prefix)
        items = self._sections.get(section, {})
        if section not in self._sorted:
            self._sorted[section] = sorted(items)
        keys = self._sorted[section]
        return Snapshot(tuple(items[key] for key in keys if key.startswith(prefix)), self._revision)

    def _is_kept(self, key: str) -> bool:
        """Keys of a section, or prefixes within one."""
        if not key.startswith(self.root) or (key.startswith(self._skipped) and not key.startswith(self._own)):
            return False
        if key.startswith(self._asked):
            return False
        return len(key) > len(self.root)

    def _section(self, key: str) -> str:
        return key[len(self.root) :].partition("/")[0]

    # Writes

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        before = self._revisions((key,))
        with self._asking():
            revision = self._store.put(key, value, lease)
        self._read_own(before, {key: value})
        return revision

    def delete(self, key: str) -> bool:
        before = self._revisions((key,))
        with self._asking():
            was_there = self._store.delete(key)
        self._read_own(before, {key: None})
        return was_there

    def compare_and_swap(self, key: str, value: bytes | None, revision: int, lease: int | None = None) -> bool:
        return self.transact({key: revision}, {key: value}, lease)

    def transact(
        self, expected: Mapping[str, int], writes: Mapping[str, bytes | None], lease: int | None = None
    ) -> bool:
        before = self._revisions(writes)
        with self._asking():
            done = self._store.transact(expected, writes, lease)
        if done:
            self._read_own(before, writes)
        else:
            self._read_others(expected)
        return done

    def watch(self, prefix: str, revision: int) -> Watch:
        return self._store.watch(prefix, revision)

    def lease(self, ttl_s: float) -> int:
        return self._store.lease(ttl_s)

    def keep_alive(self, lease: int) -> None:
        self._store.keep_alive(lease)

    def revoke(self, lease: int) -> None:
        self._store.revoke(lease)

    def _revisions(self, keys: Iterable[str]) -> dict[str, int]:
        with self._condition:
            return {key: _revision(self._at(key)) for key in keys}

    def _read_own(self, before: Mapping[str, int], writes: Mapping[str, bytes | None]) -> None:
        """Wait for the changes that were just made."""

        def is_here(key: str) -> bool:
            item = self._at(key)
            return item is None if writes[key] is None else _revision(item) != before[key]

        self._catch_up([key for key in writes if self._is_kept(key)], is_here, all)

    def _read_others(self, expected: Mapping[str, int]) -> None:
        """Wait for what stood in the way of a write."""
        kept = [key for key in expected if self._is_kept(key)]
        self._catch_up(kept, lambda key: _revision(self._at(key)) != expected[key], any)

    def _catch_up(
        self, keys: list[str], is_here: Callable[[str], bool], enough: Callable[[Iterable[bool]], bool]
    ) -> None:
        with self._condition:
            if not keys or not self._following:
                return
            if self._condition.wait_for(lambda: enough(map(is_here, keys)), CATCH_UP_S):
                return
        self._refresh(keys)

    def _refresh(self, keys: Iterable[str]) -> None:
        found = {}
        for key in keys:
            with self._asking():
                found[key] = self._store.get(key)
        with self._condition:
            for key, item in found.items():
                self._set(key, item)

    # What the store says

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow_watch()
            except ChangesMissed as error:
                log.info("reading everything again: %s", error)
            except StoreError as error:
                self._lost(error)
                self._stop.wait(RETRY_S)
            except Exception:
                log.exception("the mirror begins again")
                self._stop.wait(RETRY_S)

    def _follow_watch(self) -> None:
        there = self._whole()
        self._replace(there)
        self._found()
        watch = self._store.watch(self.root, there.revision)
        heard_s = saved_s = time.monotonic()
        try:
            while not self._stop.is_set():
                if events := watch.poll(POLL_S):
                    self._take(events)
                    self._found()
                    heard_s = time.monotonic()
                if time.monotonic() - heard_s >= (PROBE_S if self._state.connected else RETRY_S):
                    self._probe()
                    heard_s = time.monotonic()
                if time.monotonic() - saved_s >= SAVE_S:
                    self._save()
                    saved_s = time.monotonic()
        finally:
            watch.close()

    def _whole(self) -> Snapshot:
        """All there is, after what was lost is back."""
        with self._condition:
            known = {key: item for section in self._sections.values() for key, item in section.items()}
        while True:
            there = self._store.range(self.root)
            if not self._node or not put_back(self._store, self.root, self._node, known, there):
                return there

    def _probe(self) -> None:
        """The watch goes on where it was when the store is back, and does not say that it is away."""
        try:
            self._store.get(f"{self.root}layout")
        except StoreError as error:
            self._lost(error)
        else:
            self._found()

    def _replace(self, there: Snapshot) -> None:
        now = {item.key: item for item in there.items if self._is_kept(item.key)}
        with self._condition:
            known = {key for section in self._sections.values() for key in section}
            changed = {key for key, item in now.items() if self._at(key) != item} | (known - now.keys())
            for key in changed:
                self._set(key, now.get(key))
            self._revision = there.revision
            self._following = True
            self._condition.notify_all()
        self._tell(changed)

    def _take(self, events: list[Event]) -> None:
        changed = set()
        with self._condition:
            for event in events:
                if self._is_kept(event.key) and event.revision > _revision(self._at(event.key)):
                    self._set(event.key, None if event.value is None else Item(event.key, event.value, event.revision))
                    changed.add(event.key)
            self._revision = events[-1].revision
            self._condition.notify_all()
        self._tell(changed)

    def _set(self, key: str, item: Item | None) -> None:
        section = self._section(key)
        items = self._sections.setdefault(section, {})
        if (key in items) != (item is not None):
            self._sorted.pop(section, None)
        if item is None:
            items.pop(key, None)
        else:
            items[key] = item
        if self._file is not None:
            self._unsaved.add(key)

    def _tell(self, changed: set[str]) -> None:
        if changed:
            self._changed(frozenset(changed))

    # Whether the store is there

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (ChangesMissed, LeaseEnded):
            raise
        except StoreError as error:
            if self._thread is not None:
                self._lost(error)
            raise

    def _lost(self, error: StoreError) -> None:
        if self._state.connected:
            log.warning("the store cannot be reached: %s", error)
            self._state = MirrorState(False, time.time(), str(error))
            self._changed(frozenset())

    def _found(self) -> None:
        if not self._state.connected:
            log.info("the store is there again")
            self._state = MirrorState(True, time.time())
            self._changed(frozenset())

    # The file

    def _remember(self) -> bool:
        """Whether there is something to go by while the store is away."""
        with self._condition:
            if self._following or self._remembering or self._file is None:
                return self._following or self._remembering
            items = self._file.load()
            for item in items:
                self._set(item.key, item)
            self._unsaved.clear()
            self._remembering = bool(items)
            return self._remembering

    def _save(self) -> None:
        if self._file is None or not self._following:
            return
        with self._condition:
            keys, self._unsaved = self._unsaved, set()
            changed = {key: self._at(key) for key in keys}
        if changed:
            self._file.save(changed)


def _revision(item: Item | None) -> int:
    return item.revision if item else ABSENT
