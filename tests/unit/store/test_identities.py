"""One number for each label set, whoever asks and whenever."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.model.identity import FIRST_CLUSTER, LAST_CLUSTER
from reconciler.model.labels import Label, LabelSet
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.identities import Identities
from reconciler.store.protocol import root

Again = Callable[[], EmbeddedStore]
PROCESSES, SETS = 4, 40


def labels(name: str) -> LabelSet:
    return frozenset({Label("k8s", "app", name), Label("k8s", "env", "test")})


def test_a_label_set_has_one_number_across_restarts(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        first = Identities(store, 0).allocate([labels("web"), labels("db"), labels("web")])
    with closing(EmbeddedStore(path)) as store:
        assert Identities(store, 0).allocate([labels("db"), labels("web")]) == first
        assert Identities(store, 0).all() == {number: found for found, number in first.items()}
    assert len(set(first.values())) == 2
    assert all(FIRST_CLUSTER <= number <= LAST_CLUSTER for number in first.values())


def test_a_lost_store_hands_out_the_same_numbers_again(path: Path, tmp_path: Path) -> None:
    found = []
    for file in (path, tmp_path / "other.db"):
        with closing(EmbeddedStore(file)) as store:
            found.append(Identities(store, 0).allocate([labels(str(number)) for number in range(50)]))
    assert found[0] == found[1]


def test_the_clusters_id_is_in_the_upper_bits(store: EmbeddedStore) -> None:
    (number,) = Identities(store, 7).allocate([labels("web")]).values()
    assert number >> 16 == 7
    assert FIRST_CLUSTER <= number & 0xFFFF <= LAST_CLUSTER


def test_another_cluster_id_starts_anew(store: EmbeddedStore) -> None:
    Identities(store, 0).allocate([labels("web")])
    (number,) = Identities(store, 7).allocate([labels("web")]).values()
    assert number >> 16 == 7


def test_nothing_is_written_where_nothing_is_new(store: EmbeddedStore) -> None:
    identities = Identities(store, 0)
    identities.allocate([labels("web")])
    before = store.range("/").revision
    identities.allocate([labels("web")])
    assert store.range("/").revision == before


def test_labels_that_print_alike_are_not_one_identity(store: EmbeddedStore) -> None:
    honest = frozenset({Label("k8s", "a", "1"), Label("k8s", "b", "2")})
    forged = frozenset({Label("k8s", "a", "1;k8s:b=2")})
    assert len(set(Identities(store, 0).allocate([honest, forged]).values())) == 2


def allocate_all(path: Path, results: multiprocessing.Queue[dict[LabelSet, int]]) -> None:
    with closing(EmbeddedStore(path)) as store:
        results.put(Identities(store, 0).allocate([labels(str(number)) for number in range(SETS)]))


def test_concurrent_processes_get_one_number_for_each_label_set(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[dict[LabelSet, int]] = context.Queue()
    processes = [context.Process(target=allocate_all, args=(path, results)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert all(one == found[0] for one in found)
    assert len(set(found[0].values())) == SETS


def test_an_unused_number_is_released_after_its_grace_time(store: EmbeddedStore) -> None:
    identities = Identities(store, 0, grace_s=100)
    numbers = identities.allocate([labels("web"), labels("db")])
    web = {numbers[labels("web")]}
    assert identities.collect(web, 900) == ()  # marks it
    assert identities.collect(web, 1000) == ()
    assert identities.collect(web, 1099) == ()
    assert identities.collect(web, 1100) == (numbers[labels("db")],)
    assert identities.all() == {numbers[labels("web")]: labels("web")}
    assert identities.allocate([labels("db")])


def test_a_number_that_is_used_again_in_its_grace_time_stays(store: EmbeddedStore) -> None:
    identities = Identities(store, 0, grace_s=100)
    numbers = identities.allocate([labels("web"), labels("db")])
    identities.collect([], 900)
    identities.collect([], 1000)
    assert identities.allocate([labels("web")]) == {labels("web"): numbers[labels("web")]}
    identities.collect({numbers[labels("db")]}, 1050)
    assert identities.collect([], 1149) == ()
    assert len(identities.all()) == 2


def test_another_collector_with_another_clock_waits_for_the_grace_time_too(store: EmbeddedStore) -> None:
    one, other = Identities(store, 0, grace_s=100), Identities(store, 0, grace_s=100)
    numbers = one.allocate([labels("web")])
    one.collect([], 1000)
    assert other.collect([], 9_000_000) == ()
    assert other.collect([], 9_000_099) == ()
    assert other.collect([], 9_000_100) == tuple(numbers.values())


def test_when_all_numbers_are_taken_the_error_says_so(store: EmbeddedStore) -> None:
    identities = Identities(store, 0)
    prefix = f"{root('default')}identities/0/numbers/"
    record = b'{"labels": [["k8s", "app", "%d"]], "unused": false}'
    writes: dict[str, bytes | None] = {
        f"{prefix}{number}": record % number for number in range(FIRST_CLUSTER, LAST_CLUSTER)
    }
    assert store.transact({}, writes)
    assert identities.allocate([labels("last")]) == {labels("last"): LAST_CLUSTER}
    with pytest.raises(StoreError, match="all 65280 identities are taken"):
        identities.allocate([labels("one more")])


def test_a_record_that_is_no_identity_is_one_clear_error(store: EmbeddedStore) -> None:
    store.put(f"{root('default')}identities/0/numbers/300", b"nonsense")
    with pytest.raises(StoreError, match="numbers/300 in the store is not an identity"):
        Identities(store, 0).all()


def test_the_sets_that_are_given_are_those_that_are_remembered(store: EmbeddedStore) -> None:
    identities = Identities(store, 0)
    found = identities.allocate([labels("web"), labels("db")])
    known = identities.all()
    assert all(known[number] is one for one, number in found.items())


def test_a_new_set_is_remembered_as_the_object_that_was_given(store: EmbeddedStore) -> None:
    given = labels("web")
    [found] = Identities(store, 0).allocate([given])
    assert found is given
