"""Reports of other hosts about a push, heard through a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.daemon.answers import LINES, Told, answers
from reconciler.daemon.reporter import Reporter
from reconciler.daemon.wakeup import Wakeup
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.reports import Pushed, Report, announce, reports, tell
from tests.e2e.daemon_host import until

WITHIN_S = 20.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(EmbeddedStore(tmp_path / "store.sqlite")) as opened:
        yield opened


def report(node: str, commit: str = "c2", result: str = "applied", error: str = "") -> Report:
    return Report(node, commit, result, "2026-01-01T00:00:00+00:00", error=error)


async def _heard(store: EmbeddedStore, *nodes: str, within_s: float = WITHIN_S) -> list[Report]:
    return [one async for one in answers(store, "demo", "c2", nodes, within_s)]


def test_it_hears_who_answered_before_and_who_answers_later(store: EmbeddedStore) -> None:
    async def whole() -> list[Report]:
        found = []
        async for one in answers(store, "demo", "c2", ["beta", "gamma"], WITHIN_S):
            found.append(one)
            tell(store, "demo", report("gamma"))
        return found

    tell(store, "demo", report("beta"))
    assert asyncio.run(whole()) == [report("beta"), report("gamma")]


def test_words_about_another_commit_are_no_answer(store: EmbeddedStore) -> None:
    tell(store, "demo", report("beta", "c1"))
    assert asyncio.run(_heard(store, "beta", within_s=0.05)) == []


def test_few_hosts_have_a_line_each() -> None:
    told = Told(2)
    assert told.line(report("beta")).startswith("beta: applied c2 in 0 ms")
    assert list(told.silent(["gamma"], {})) == ["gamma: no answer yet (it never reported)"]


def test_of_many_hosts_those_that_are_well_are_counted() -> None:
    told = Told(LINES + 1)
    assert told.line(report("beta")) == ""
    assert "it does not fit" in told.line(report("gamma", result="refused", error="it does not fit"))
    assert list(told.silent(["delta"], {"delta": report("delta", "c1")})) == [
        "delta: no answer yet (its last word is of 2026-01-01T00:00:00+00:00: applied c1)",
        "plumb: applied on 1 other hosts",
    ]


def test_a_report_reaches_the_store(store: EmbeddedStore) -> None:
    with closing(Reporter()) as reporter:
        reporter.tell(store, "demo", report("beta"))
        until(lambda: reports(store, "demo")[0], "it is written")
    assert replace(reports(store, "demo")[0]["beta"], seen="") == report("beta")


def test_a_push_to_another_host_wakes_and_one_to_this_host_does_not(store: EmbeddedStore) -> None:
    woken: list[str] = []
    with closing(Wakeup(store, "demo", "beta", woken.append)):
        for commit, host in (("c1", "beta"), ("c2", "alpha")):
            announce(store, "demo", Pushed(commit, "refs/heads/main", "", host))
        until(lambda: woken == ["c2"], "the push is heard")
