"""Words that hosts leave for each other, through a store."""

from __future__ import annotations

from reconciler.store.embedded import EmbeddedStore
from reconciler.store.reports import (
    Pushed,
    Report,
    announce,
    as_report,
    last_pushed,
    node_of,
    reports,
    reports_prefix,
    retract,
    tell,
)

CLUSTER = "demo/1"
ALPHA = Report("alpha", "c1", "applied", "2026-01-01T00:00:00Z", counts={"policy": "+1 ~0 -0"})


def test_the_newest_push_is_the_one_that_is_known(store: EmbeddedStore) -> None:
    assert last_pushed(store, CLUSTER) is None
    for commit in ("c1", "c2"):
        announce(store, CLUSTER, Pushed(commit, "refs/heads/main", "2026-01-01T00:00:00Z", "alpha"))
    assert last_pushed(store, CLUSTER) == Pushed("c2", "refs/heads/main", "2026-01-01T00:00:00Z", "alpha")


def test_each_node_has_one_report_and_those_of_another_cluster_are_not_seen(store: EmbeddedStore) -> None:
    tell(store, "other", Report("gamma", "c9", "applied", "2026-01-01T00:00:00Z"))
    tell(store, CLUSTER, Report("alpha", "c0", "failed", "2025-01-01T00:00:00Z"))
    tell(store, CLUSTER, ALPHA)
    assert reports(store, CLUSTER)[0] == {"alpha": ALPHA}


def test_reports_can_be_watched_from_where_they_were_read(store: EmbeddedStore) -> None:
    _, revision = reports(store, CLUSTER)
    tell(store, CLUSTER, ALPHA)
    (event,) = store.watch(reports_prefix(CLUSTER), revision).poll(5.0)
    assert (node_of(event), as_report(event.value)) == ("alpha", ALPHA)


def test_a_node_that_is_gone_is_forgotten(store: EmbeddedStore) -> None:
    tell(store, CLUSTER, ALPHA)
    retract(store, CLUSTER, "alpha")
    assert reports(store, CLUSTER)[0] == {}


def test_what_another_version_wrote_is_read_as_far_as_it_is_known(store: EmbeddedStore) -> None:
    store.put(f"{reports_prefix(CLUSTER)}alpha", b'{"node": "alpha", "commit": "c", "result": "r", "time": "", "x": 1}')
    store.put(f"{reports_prefix(CLUSTER)}beta", b"\xff{")
    store.put(f"{reports_prefix(CLUSTER)}gamma", b'["a"]')
    assert reports(store, CLUSTER)[0] == {"alpha": Report("alpha", "c", "r", "")}
