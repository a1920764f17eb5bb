"""Flow events for whoever listens, the datapath's counters, and how full it is.

Programs send events only while somebody listens: a host on which nobody looks pays for counters alone. A listener that
cannot keep up loses events, and is told how many.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.bpf.ringbuf import RingBuffer
from reconciler.host import Host
from reconciler.observe.events import Decoder, shipped_layout
from reconciler.observe.flow_text import Nameless, Resolver, to_json, to_text

QUEUED = 4096
AT_ONCE = 2048  # records a turn of the event loop
MASKS = {"drop": 1, "verdict": 2}  # enum event_mask, bpf/lib/state.h

OnHost = Callable[..., Awaitable[Any]]


@dataclass(slots=True, eq=False)
class _Listener:
    types: frozenset[str]
    queue: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(QUEUED))
    lost: int = 0


class Monitor:
    """Owned by the daemon's event loop."""

    def __init__(self, host: Host, on_host: OnHost) -> None:
        self._host = host
        self._on_host = on_host
        self._listeners: set[_Listener] = set()
        self._ring: RingBuffer | None = None
        self._records: list[bytes] = []
        self._decoder: Decoder | None = None
        self._adjusting = asyncio.Lock()

    async def close(self) -> None:
        self._listeners.clear()
        await self._adjust()

    def counters(self) -> dict[str, Any]:
        """Packets by reason, new flows and lost events; empty while there is no datapath. In the writer thread."""
        found = self._host.counters()
        if found is None:
            return {}
        by_reason = {reason.word: counter.packets for reason, counter in found.by_reason.items() if counter.packets}
        return {**by_reason, "new flows": found.new_flows.packets, "lost events": found.lost_events}

    def fullness(self) -> dict[str, Any]:
        """Map of flows -> live entries and room for them, as of the last collection. In the writer thread."""
        return {name: asdict(found) for name, found in self._host.fullness().items()}

    async def stream(self, types: frozenset[str]) -> AsyncGenerator[bytes]:
        """A JSON object a line for each event of these types (drop, verdict), until the reader goes away."""
        listener = _Listener(types)
        self._listeners.add(listener)
        try:
            await self._adjust()
            while True:
                line = await listener.queue.get()
                if listener.lost:
                    yield json.dumps({"type": "lost", "count": listener.lost}).encode() + b"\n"
                    listener.lost = 0
                yield line
        finally:
            self._listeners.discard(listener)
            await asyncio.shield(self._adjust())  # whoever ends the stream may do so twice

    async def _adjust(self) -> None:
        """Ask the programs for what somebody wants to hear, and read it while anybody does."""
        async with self._adjusting:
            wanted = 0
            for listener in self._listeners:
                for name in listener.types:
                    wanted |= MASKS.get(name, 0)
            if wanted and self._ring is None:
                descriptor = await self._on_host(self._host.events)
                self._decoder = Decoder(shipped_layout())
                self._ring = RingBuffer(descriptor, self._records.append)
                self._ring.consume()  # of before anybody listened
                self._records.clear()
                asyncio.get_running_loop().add_reader(self._ring.fileno(), self._on_events)
            if not wanted and self._ring is not None:
                asyncio.get_running_loop().remove_reader(self._ring.fileno())
                self._ring.close()
                self._ring = None
            await self._on_host(self._host.listen_for, wanted)

    def _on_events(self) -> None:
        if self._ring is None or self._decoder is None:
            return
        self._ring.consume(AT_ONCE)
        records, self._records[:] = list(self._records), []
        events = self._decoder.decode(records)
        names: Resolver = self._host.resolver() or Nameless()
        for event in events:
            line: bytes | None = None
            for listener in self._listeners:
                if event.type.word not in listener.types:
                    continue
                if listener.queue.full():
                    listener.lost += 1
                    continue
                line = line or json.dumps({**to_json(event, names), "text": to_text(event, names)}).encode() + b"\n"
                listener.queue.put_nowait(line)
