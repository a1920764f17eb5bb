"""Reasons pile up, and one pass takes them all."""

from __future__ import annotations

import asyncio
import threading

from reconciler.daemon.trigger import Trigger, Work


def _run(body: object) -> Work:
    return asyncio.run(body())  # type: ignore[operator, no-any-return]


def test_reasons_that_came_together_are_one_piece_of_work() -> None:
    async def body() -> Work:
        trigger = Trigger()
        trigger.poke("route deleted", "routes")
        trigger.poke("link down", "links", "routes")
        return await trigger.take()

    work = _run(body)
    assert work.reasons == ["route deleted", "link down"]
    assert work.tables == {"routes", "links"}
    assert not work.everything
    assert not work.commit


def test_a_reason_without_tables_dirties_everything() -> None:
    async def body() -> Work:
        trigger = Trigger()
        trigger.poke("audit")
        return await trigger.take()

    assert _run(body).everything


def test_a_commit_alone_leaves_the_comparison_to_its_plan() -> None:
    async def body() -> Work:
        trigger = Trigger()
        trigger.poke("main moved", commit=True)
        return await trigger.take()

    work = _run(body)
    assert work.commit
    assert not work.everything


def test_what_comes_during_a_pass_waits_for_the_next() -> None:
    async def body() -> Work:
        trigger = Trigger()
        trigger.poke("first", "routes")
        await trigger.take()
        trigger.poke("second", "links")
        return await trigger.take()

    work = _run(body)
    assert work.reasons == ["second"]
    assert work.tables == {"links"}


def test_another_thread_may_wake_the_loop() -> None:
    async def body() -> Work:
        trigger = Trigger()
        threading.Thread(target=lambda: trigger.poke_threadsafe("from a thread", commit=True)).start()
        return await asyncio.wait_for(trigger.take(), 10)

    assert _run(body).reasons == ["from a thread"]
