"""Waiting for what becomes of a commit."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from reconciler.daemon.outcome import KEPT, Outcome, Outcomes
from reconciler.errors import PlumbError

COMMIT = "1a2b3c4d" * 5


def _outcome(commit: str = COMMIT) -> Outcome:
    return Outcome("alpha", commit, "applied", 84.2, {"policy": "+3 ~1 -0"})


def test_an_outcome_that_is_known_is_told_at_once() -> None:
    async def body() -> Outcome:
        outcomes = Outcomes()
        await outcomes.publish(_outcome())
        return await outcomes.wait(COMMIT, 1)

    assert asyncio.run(body()) == _outcome()


def test_people_read_what_was_left_for_later_below_the_outcome() -> None:
    outcome = replace(_outcome(), notes=("web.yaml:1: waits",))
    assert str(outcome) == f"{_outcome()}\n  web.yaml:1: waits"
    assert outcome.line == str(_outcome())


def test_people_read_what_to_do_about_an_error_below_it() -> None:
    outcome = replace(_outcome(), result="failed", error="no room", remedy="make room")
    assert str(outcome).endswith(": no room\n  next: make room")
    assert "make room" not in outcome.line


def test_who_waits_hears_of_it_when_it_comes() -> None:
    async def body() -> Outcome:
        outcomes = Outcomes()
        waiting = asyncio.create_task(outcomes.wait(COMMIT, 10))
        await asyncio.sleep(0)
        await outcomes.publish(_outcome())
        return await waiting

    assert asyncio.run(body()) == _outcome()


def test_waiting_ends_in_words() -> None:
    async def body() -> None:
        await Outcomes().wait(COMMIT, 0.01)

    with pytest.raises(PlumbError, match=r"nothing is known of 1a2b3c4d1a2b after 0\.01 s"):
        asyncio.run(body())


def test_only_the_latest_are_kept() -> None:
    async def body() -> Outcomes:
        outcomes = Outcomes()
        for number in range(KEPT + 1):
            await outcomes.publish(_outcome(f"{number:040x}"))
        return outcomes

    outcomes = asyncio.run(body())
    assert outcomes.get(f"{0:040x}") is None
    assert outcomes.get(f"{KEPT:040x}") is not None


def test_an_outcome_reads_as_a_line() -> None:
    assert str(_outcome()) == "alpha: applied 1a2b3c4d1a2b in 84 ms (policy +3 ~1 -0)"


def test_an_outcome_is_past_once_another_commit_was_looked_at() -> None:
    async def body() -> Outcomes:
        outcomes = Outcomes()
        await outcomes.publish(_outcome())
        assert not outcomes.is_past(COMMIT)
        await outcomes.publish(_outcome("b" * 40))
        return outcomes

    outcomes = asyncio.run(body())
    assert outcomes.is_past(COMMIT)
    assert not outcomes.is_past("b" * 40)
    assert not outcomes.is_past("c" * 40)


def test_what_a_commit_changed_is_told_even_if_it_was_looked_at_again() -> None:
    async def body() -> Outcome:
        outcomes = Outcomes()
        await outcomes.publish(_outcome())
        await outcomes.publish(Outcome("alpha", COMMIT, "unchanged", 1.0))
        return await outcomes.wait(COMMIT, 1)

    assert asyncio.run(body()).result == "applied"


def test_what_somebody_kept_back_is_forgotten_when_they_let_go() -> None:
    async def body() -> Outcomes:
        outcomes = Outcomes()
        await outcomes.publish(_outcome("b" * 40))
        await outcomes.publish(Outcome("alpha", COMMIT, "suspended", 0.0, error="maintenance"))
        outcomes.forget_kept_back()
        return outcomes

    outcomes = asyncio.run(body())
    assert outcomes.get(COMMIT) is None
    assert outcomes.get("b" * 40) is not None
