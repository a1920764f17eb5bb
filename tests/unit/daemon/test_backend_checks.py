"""Active checks: what an answer means, and when several of them change a backend's state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from reconciler.daemon.backend_checks import BackendChecks, Judged, answer
from reconciler.host.service_checks import Check, Unhealthy
from reconciler.model.service import HealthCheck, HealthKind

SOON = HealthCheck(interval_s=0.01, timeout_s=0.5)
DEADLINE_S = 10.0


def check(port: int = 80, how: HealthCheck = SOON, service: str = "default/web", address: str = "127.0.0.1") -> Check:
    return Check(service, (ip_address(address), port, 6), how)


@asynccontextmanager
async def serving(reply: bytes, address: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that answers the first line with this, and what it was asked."""
    asked: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readline())
            writer.write(reply)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(respond, address, 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


async def asked(reply: bytes, how: HealthCheck, address: str = "127.0.0.1") -> str:
    async with serving(reply, address) as (port, _):
        return await answer(check(port, how, address=address))


async def free_port() -> int:
    async with serving(b"") as (port, _):
        return port


HTTP = HealthCheck(HealthKind.HTTP, "/up", timeout_s=0.5)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_connection_is_all_that_tcp_asks_for(address: str) -> None:
    assert asyncio.run(asked(b"", SOON, address)) == ""


def test_a_port_that_nobody_listens_at_is_a_fault() -> None:
    async def refused() -> str:
        return await answer(check(await free_port()))

    assert "refused" in asyncio.run(refused())


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 301 Moved\r\n\r\n", ""),
        (b"HTTP/1.1 503 No\r\n\r\n", "status 503"),
        (b"hello\r\n", "no HTTP: b'hello\\r\\n'"),
        (b"", "no HTTP: b''"),
    ],
)
def test_http_asks_for_a_good_status(reply: bytes, fault: str) -> None:
    assert asyncio.run(asked(reply, HTTP)) == fault


def test_a_line_without_end_is_no_status() -> None:
    assert asyncio.run(asked(b"HTTP/1.1 200" + b" " * 100_000, HTTP)).startswith("no HTTP")


def test_http_asks_for_its_path_at_its_own_port() -> None:
    async def line() -> bytes:
        async with serving(b"HTTP/1.1 200 OK\r\n\r\n") as (port, lines):
            assert await answer(check(1, replace(HTTP, port=port))) == ""
            return lines[0]

    assert asyncio.run(line()) == b"GET /up HTTP/1.1\r\n"


def test_no_answer_in_time_is_a_fault() -> None:
    async def silent() -> str:
        async with serving(b"") as (port, _):
            return await answer(check(port, HealthCheck(timeout_s=0.0001, interval_s=1)))

    assert asyncio.run(silent()) in ("no answer within 0.0001 s", "")  # a connection may be as quick as that


def test_only_answers_in_a_row_change_a_state() -> None:
    one = Judged(check(how=HealthCheck(healthy=2, unhealthy=3)), healthy=True)
    said = [one.heard(fault) for fault in ("no", "no", "", "no", "no", "no", "", "no", "", "")]
    assert said == [False, False, False, False, False, True, False, False, False, True]
    assert one.healthy


class Followed:
    """Checks whose answers the test gives: backends whose ports are in `down` are at fault."""

    def __init__(self) -> None:
        self.down: set[int] = set()
        self.told: asyncio.Queue[Unhealthy] = asyncio.Queue()
        self.checks = BackendChecks(self.told.put_nowait, self._ask)
        self.asked: set[int] = set()

    async def _ask(self, one: Check) -> str:
        self.asked.add(one.backend[1])
        return "down" if one.backend[1] in self.down else ""

    async def next(self) -> Unhealthy:
        return await asyncio.wait_for(self.told.get(), DEADLINE_S)


def test_a_backend_that_goes_down_and_comes_back_is_told_of_once_each() -> None:
    async def follow() -> list[Unhealthy]:
        followed = Followed()
        followed.checks.follow([check(1), check(2)], {})
        followed.down = {2}
        found = [await followed.next()]
        followed.down = set()
        found.append(await followed.next())
        followed.checks.close()
        return found

    assert asyncio.run(follow()) == [{"default/web": frozenset({check(2).backend})}, {}]


def test_who_is_known_to_be_unhealthy_begins_so() -> None:
    async def follow() -> tuple[Unhealthy, Unhealthy]:
        followed = Followed()
        followed.checks.follow([check(1), check(2)], {"default/web": frozenset({check(1).backend})})
        before = followed.checks.unhealthy()
        after = await followed.next()
        followed.checks.close()
        return before, after

    assert asyncio.run(follow()) == ({"default/web": frozenset({check(1).backend})}, {})


def test_who_is_not_wanted_any_more_is_not_asked_any_more() -> None:
    async def follow() -> tuple[Unhealthy, int]:
        followed = Followed()
        followed.down = {1, 2}
        followed.checks.follow([check(1), check(2)], {})
        while len((await followed.next())["default/web"]) < 2:
            pass
        followed.checks.follow([check(1)], {})
        found = followed.checks.unhealthy(), len(asyncio.all_tasks()) - 1
        followed.checks.close()
        return found

    unhealthy, tasks = asyncio.run(follow())
    assert unhealthy == {"default/web": frozenset({check(1).backend})}
    assert tasks in (1, 2)  # the cancelled one may not have ended yet


def test_another_way_of_asking_keeps_the_state() -> None:
    async def follow() -> Unhealthy:
        followed = Followed()
        followed.down = {1}
        followed.checks.follow([check(1)], {})
        await followed.next()
        followed.checks.follow([check(1, replace(SOON, healthy=100))], {})
        found = followed.checks.unhealthy()
        followed.checks.close()
        return found

    assert asyncio.run(follow()) == {"default/web": frozenset({check(1).backend})}
