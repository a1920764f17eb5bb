"""The mirror of a store: reads from memory, writes through, and what is left when the store is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.model.labels import Label
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.identities import Identities
from reconciler.store.mirror import Mirror
from reconciler.store.mirror_file import MirrorFile
from reconciler.store.protocol import ABSENT, Item, Snapshot, root

DEADLINE_S = 10.0
KEY = root("demo") + "nodes/beta"
Open = Callable[..., "Heard"]


class Counted(EmbeddedStore):
    """Counts what it is asked, and refuses while it is `away`."""

    asked = 0
    away = False

    def get(self, key: str) -> Item | None:
        self._count()
        return super().get(key)

    def range(self, prefix: str) -> Snapshot:
        self._count()
        return super().range(prefix)

    def _count(self) -> None:
        self.asked += 1
        if self.away:
            raise StoreError("cut off")


class Heard(Mirror):
    """Remembers which keys it was told of."""

    def __init__(self, store: Counted, file: MirrorFile | None = None) -> None:
        super().__init__(store, "demo", "alpha", file)
        self.beneath = store
        self.keys: set[str] = set()

    def begin(self) -> Heard:
        self.follow(self.keys.update)
        until(lambda: self.synchronised)
        return self


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def opened(path: Path, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_mirror(kept: bool = False) -> Heard:
            file = MirrorFile(tmp_path / "mirror.sqlite") if kept else None
            return stack.enter_context(closing(Heard(Counted(path), file)))

        yield open_mirror


def test_it_reads_from_memory(opened: Open, store: EmbeddedStore) -> None:
    store.put(KEY, b"1")
    mirror = opened().begin()
    asked = mirror.beneath.asked
    found = mirror.range(root("demo") + "nodes/").items
    assert (mirror.get(KEY), mirror.beneath.asked) == (found[0], asked)


def test_a_section_that_is_asked_for_is_read_from_the_store(path: Path, store: EmbeddedStore) -> None:
    key = root("demo") + "identities/1/numbers/300"
    with closing(Counted(path)) as beneath, closing(Mirror(beneath, "demo", "alpha", asked=["identities"])) as mirror:
        mirror.follow(lambda keys: None)
        until(lambda: mirror.synchronised)
        store.put(key, b"1")
        asked = beneath.asked
        item = mirror.get(key)
        assert item
        assert (item.value, beneath.asked) == (b"1", asked + 1)


def test_it_learns_what_others_write(opened: Open, store: EmbeddedStore) -> None:
    mirror = opened().begin()
    store.put(KEY, b"1")
    until(lambda: KEY in mirror.keys)
    item = mirror.get(KEY)
    assert item
    assert item.value == b"1"


def test_it_learns_what_others_delete(opened: Open, store: EmbeddedStore) -> None:
    store.put(KEY, b"1")
    mirror = opened().begin()
    store.delete(KEY)
    until(lambda: mirror.get(KEY) is None)
    assert mirror.range(root("demo") + "nodes/").items == ()


def test_whoever_writes_reads_its_own_write(opened: Open) -> None:
    mirror = opened().begin()
    for value in (b"1", b"2", None, b"3"):
        mirror.transact({}, {KEY: value})
        item = mirror.get(KEY)
        assert (item.value if item else None) == value


def test_whoever_loses_a_swap_reads_what_won(opened: Open, store: EmbeddedStore) -> None:
    mirror = opened().begin()
    store.put(KEY, b"theirs")
    assert not mirror.compare_and_swap(KEY, b"mine", ABSENT)
    item = mirror.get(KEY)
    assert item
    assert item.value == b"theirs"


def test_addresses_of_other_nodes_are_not_kept(opened: Open, store: EmbeddedStore) -> None:
    theirs, mine = (root("demo") + f"addresses/{node}/10.0.0.1" for node in ("beta", "alpha"))
    mirror = opened().begin()
    store.put(theirs, b"1")
    store.put(mine, b"1")
    until(lambda: mine in mirror.keys)
    assert theirs not in mirror.keys
    assert mirror.get(theirs) is not None


def test_two_mirrors_give_a_label_set_one_number(opened: Open) -> None:
    sets = [frozenset((Label("k8s", "app", str(number)),)) for number in range(50)]
    one, other = (Identities(opened().begin(), 0, "demo") for _ in range(2))
    assert one.allocate(sets[:30]) | other.allocate(sets[20:]) == one.allocate(sets)


def test_while_the_store_is_away_it_knows_what_it_knew(opened: Open, store: EmbeddedStore) -> None:
    store.put(KEY, b"1")
    mirror = opened().begin()
    mirror.beneath.away = True
    with pytest.raises(StoreError, match="cut off"):
        mirror.get(root("demo") + "addresses/beta/10.0.0.1")
    assert mirror.get(KEY) is not None
    assert not mirror.state.connected
    mirror.beneath.away = False
    until(lambda: mirror.state.connected)


def test_a_start_without_the_store_goes_by_the_file(opened: Open, store: EmbeddedStore) -> None:
    store.put(KEY, b"1")
    opened(kept=True).begin().close()
    mirror = opened(kept=True)
    mirror.beneath.away = True
    item = mirror.get(KEY)
    assert item
    assert item.value == b"1"


def test_what_went_while_nobody_looked_is_not_in_the_file_either(opened: Open, store: EmbeddedStore) -> None:
    store.put(KEY, b"1")
    opened(kept=True).begin().close()
    store.delete(KEY)
    mirror = opened(kept=True).begin()
    assert mirror.get(KEY) is None
    assert KEY in mirror.keys
    mirror.close()
    again = opened(kept=True)
    again.beneath.away = True
    with pytest.raises(StoreError, match="cut off"):
        again.get(KEY)


def test_a_damaged_file_is_made_anew(opened: Open, store: EmbeddedStore, tmp_path: Path) -> None:
    (tmp_path / "mirror.sqlite").write_bytes(b"garbage" * 1000)
    store.put(KEY, b"1")
    assert opened(kept=True).begin().get(KEY) is not None
