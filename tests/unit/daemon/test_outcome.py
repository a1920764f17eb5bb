"""Waiting for what becomes of a commit."""

from __future__ import annotations

import asyncio

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
