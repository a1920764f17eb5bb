"""Active checks of the backends of services: each is asked at its interval, and its state changes after a few answers.

A backend counts as healthy until its checks say otherwise. Checks of one backend never overlap, and all begin at a
random part of their interval, so that they spread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import struct
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from reconciler.host.service_checks import Check, Unhealthy
from reconciler.model.facts import BackendKey
from reconciler.model.service import HealthKind

log = logging.getLogger(__name__)

AT_ONCE = 256
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: no port waits for the end of a check
_LONGEST_LINE = 1024
_GOOD = range(200, 400)

Ask = Callable[[Check], Awaitable[str]]  # what is wrong, '' if nothing


class Judged:
    """What the answers of one backend mean: several in a row change its state."""

    def __init__(self, check: Check, healthy: bool) -> None:
        self.check = check
        self.healthy = healthy
        self._against = 0  # answers in a row that speak against the present state

    def heard(self, fault: str) -> bool:
        """Whether that changed the state."""
        if self.healthy is not bool(fault):
            self._against = 0
            return False
        self._against += 1
        needed = self.check.how.unhealthy if self.healthy else self.check.how.healthy
        if self._against < needed:
            return False
        self.healthy, self._against = not self.healthy, 0
        return True


class BackendChecks:
    """Belongs to one event loop. `changed` is called with all unhealthy backends whenever these change."""

    def __init__(self, changed: Callable[[Unhealthy], None], ask: Ask | None = None) -> None:
        self._changed = changed
        self._ask = ask or answer
        self._room = asyncio.Semaphore(AT_ONCE)
        self._judged: dict[tuple[str, BackendKey], Judged] = {}
        self._tasks: dict[tuple[str, BackendKey], asyncio.Task[None]] = {}

    def follow(self, wanted: Iterable[Check], known: Unhealthy) -> None:
        """Check these and no others. `known`: who is unhealthy, of those that are new here."""
        checks = {(one.service, one.backend): one for one in wanted}
        for key in [key for key, one in self._judged.items() if checks.get(key) != one.check]:
            self._tasks.pop(key).cancel()
            gone = self._judged.pop(key)
            if key in checks:  # it is asked in another way from now on
                self._start(key, Judged(checks[key], gone.healthy))
        for key, check in checks.items():
            if key not in self._judged:
                self._start(key, Judged(check, check.backend not in known.get(check.service, ())))

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._judged.clear()

    def unhealthy(self) -> Unhealthy:
        found: defaultdict[str, set[BackendKey]] = defaultdict(set)
        for (service, backend), one in self._judged.items():
            if not one.healthy:
                found[service].add(backend)
        return {service: frozenset(backends) for service, backends in found.items()}

    def _start(self, key: tuple[str, BackendKey], judged: Judged) -> None:
        self._judged[key] = judged
        self._tasks[key] = asyncio.create_task(self._watch(judged))

    async def _watch(self, judged: Judged) -> None:
        interval_s = judged.check.how.interval_s
        loop = asyncio.get_running_loop()
        due = loop.time() + interval_s * random.random()
        while True:
            await asyncio.sleep(due - loop.time())
            async with self._room:
                fault = await self._ask(judged.check)
            if judged.heard(fault):
                self._tell(judged, fault)
            due = max(due + interval_s, loop.time())

    def _tell(self, judged: Judged, fault: str) -> None:
        address, port, _ = judged.check.backend
        state, why = ("healthy", "") if judged.healthy else ("unhealthy", f" reason={fault!r}")
        level = logging.INFO if judged.healthy else logging.WARNING
        log.log(level, "backend %s service=%s address=%s port=%d%s", state, judged.check.service, address, port, why)
        self._changed(self.unhealthy())


async def answer(check: Check) -> str:
    """What is wrong with a backend, '' if nothing. Raises nothing but that it was cancelled."""
    try:
        async with asyncio.timeout(check.how.timeout_s):
            return await _asked(check)
    except TimeoutError:
        return f"no answer within {check.how.timeout_s:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    except ValueError as error:  # a line longer than any status
        return f"no HTTP: {error}"


async def _asked(check: Check) -> str:
    address, port, _ = check.backend
    reader, writer = await asyncio.open_connection(
        str(address), check.how.port or port, limit=_LONGEST_LINE, family=_family(address.version)
    )
    try:
        if check.how.kind is not HealthKind.HTTP:
            return ""
        host = f"[{address}]" if address.version == 6 else str(address)
        head = f"GET {check.how.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: plumbline\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        return _status_fault(await reader.readline())
    finally:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _status_fault(line: bytes) -> str:
    words = line.split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"no HTTP: {line[:40]!r}"
    return "" if int(words[1]) in _GOOD else f"status {int(words[1])}"


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET6 if version == 6 else socket.AF_INET
