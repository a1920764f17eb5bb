"""Listeners of the daemon's monitor that come and go at once, over a real ring buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from reconciler.bpf import maps
from reconciler.bpf.syscalls import held
from reconciler.daemon.monitor import MASKS, Monitor
from reconciler.host import Host


class _Datapath:
    """What the monitor asks of a host: its ring buffer, and which events its programs send."""

    def __init__(self, ring: int) -> None:
        self.ring = ring
        self.opened = 0
        self.masks: list[int] = []

    def events(self) -> int:
        self.opened += 1
        return self.ring

    def listen_for(self, mask: int) -> None:
        self.masks.append(mask)


@pytest.fixture
def datapath() -> Iterator[_Datapath]:
    with held(maps.create(maps.RINGBUF, 0, 0, 4096, name="pt_events")) as ring:
        yield _Datapath(ring)


async def _in_a_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """As the daemon's writer thread: whoever asks gives way to others."""
    return await asyncio.to_thread(function, *arguments)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.to_thread(lambda: None)


def test_two_who_begin_to_listen_at_once_share_one_ring_buffer(datapath: _Datapath) -> None:
    async def listen() -> None:
        monitor = Monitor(cast(Host, datapath), _in_a_thread)
        streams = [monitor.stream(frozenset([one])) for one in MASKS]
        waiting = [asyncio.create_task(anext(stream)) for stream in streams]
        await _until(lambda: MASKS["drop"] | MASKS["verdict"] in datapath.masks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await monitor.close()

    asyncio.run(listen())
    assert (datapath.opened, datapath.masks[-1]) == (1, 0)


def test_who_comes_while_another_is_still_asking_is_not_forgotten(datapath: _Datapath) -> None:
    begun = asyncio.Event()

    async def first_slowly(function: Callable[..., Any], *arguments: Any) -> Any:
        if arguments == (MASKS["drop"],) and not begun.is_set():
            begun.set()
            for _ in range(20):
                await asyncio.to_thread(lambda: None)
        return await asyncio.to_thread(function, *arguments)

    async def listen() -> None:
        monitor = Monitor(cast(Host, datapath), first_slowly)
        first = asyncio.create_task(anext(monitor.stream(frozenset(["drop"]))))
        await begun.wait()
        second = asyncio.create_task(anext(monitor.stream(frozenset(["verdict"]))))
        await _until(lambda: len(datapath.masks) == 2)
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await monitor.close()

    asyncio.run(listen())
    assert datapath.masks[:2] == [MASKS["drop"], MASKS["drop"] | MASKS["verdict"]]
