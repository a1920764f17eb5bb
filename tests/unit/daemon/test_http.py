"""The API's HTTP over a real unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.daemon.client import Client
from reconciler.daemon.http import Request, Respond, Response, json_response, serve
from reconciler.errors import DaemonSilent, DaemonUnreachable, Fault, ManifestError, PlanStale, PlumbError, UsageError

SIGN = b"HTTP/1.1 100 \r\n\r\n"


def _asked(path: Path, header: str = "") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(str(path))
    connection.sendall(f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode())
    return connection


def _read_until(connection: socket.socket, end: bytes) -> bytes:
    said = b""
    while end not in said:
        more = connection.recv(65536)
        assert more, said
        said += more
    return said


@contextmanager
def _listening(path: Path) -> Iterator[None]:
    """Somebody who takes connections and never answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


async def _echo(request: Request) -> Response:
    return json_response({"method": request.method, "path": request.path, "query": request.query, **request.json()})


def _ask(path: Path, respond: Respond, ask: object) -> object:
    """What `ask(client)` returns, asked of a server that lives as long as the question."""

    async def main() -> object:
        server = await serve(path, "root", respond)
        try:
            return await asyncio.to_thread(ask, Client(path, silence_s=10))  # type: ignore[arg-type]
        finally:
            server.close()

    return asyncio.run(main())


def test_a_request_arrives_whole_and_its_answer_comes_back(tmp_path: Path) -> None:
    answer = _ask(tmp_path / "s", _echo, lambda client: client.post("/v1/plan?x=1", {"revision": "main"}))
    assert answer == {"method": "POST", "path": "/v1/plan", "query": {"x": "1"}, "revision": "main"}


@pytest.mark.parametrize(
    "error",
    [
        PlanStale("rows changed"),
        UsageError("no such table", remedy="name another"),
        ManifestError([Fault("policies/web.yaml", 14, 9, "port 70000 is above 65535")]),
    ],
)
def test_an_error_is_the_same_on_the_other_side(tmp_path: Path, error: PlumbError) -> None:
    async def refuse(request: Request) -> Response:
        raise error

    with pytest.raises(type(error)) as caught:
        _ask(tmp_path / "s", refuse, lambda client: client.get("/v1/status"))
    assert str(caught.value) == str(error)
    assert caught.value.exit_code == error.exit_code
    assert caught.value.remedy == error.remedy


def test_a_bug_in_an_answer_is_told_and_does_not_end_the_server(tmp_path: Path) -> None:
    async def broken(request: Request) -> Response:
        raise ZeroDivisionError("division")

    with pytest.raises(PlumbError, match="internal error: ZeroDivisionError: division"):
        _ask(tmp_path / "s", broken, lambda client: client.get("/v1/status"))


def test_a_full_disk_is_told_in_the_systems_words_and_with_a_remedy(tmp_path: Path) -> None:
    async def write(request: Request) -> Response:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
        return json_response({})

    with pytest.raises(PlumbError, match="No space left on device") as caught:
        _ask(tmp_path / "s", write, lambda client: client.post("/v1/suspend", {}))
    assert "internal error" not in str(caught.value)
    assert caught.value.remedy == "make room on that disk, then again"


def test_pieces_are_sent_as_they_come(tmp_path: Path) -> None:
    async def lines() -> AsyncGenerator[bytes]:
        yield b'{"n": 1}\n'
        yield b'{"n": 2}\n'

    async def stream(request: Request) -> Response:
        return Response(lines(), "application/jsonl")

    assert _ask(tmp_path / "s", stream, lambda client: list(client.stream("/v1/events"))) == [{"n": 1}, {"n": 2}]


def test_a_stream_that_says_nothing_ends_when_its_reader_leaves(tmp_path: Path) -> None:
    ended = threading.Event()

    async def nothing() -> AsyncGenerator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            ended.set()

    async def stream(request: Request) -> Response:
        return Response(nothing(), "application/jsonl")

    def leave(client: Client) -> bool:
        with _asked(tmp_path / "s") as connection:
            _read_until(connection, b"\r\n\r\n")
        return ended.wait(10)

    assert _ask(tmp_path / "s", stream, leave) is True


def test_who_asks_for_it_hears_signs_of_life_until_the_answer_comes(tmp_path: Path) -> None:
    heard = threading.Event()

    async def late(request: Request) -> Response:
        await asyncio.to_thread(heard.wait, 30)
        return json_response({})

    def listen(client: Client) -> bytes:
        with _asked(tmp_path / "s", "Heartbeat: 1\r\n") as connection:
            said = _read_until(connection, SIGN + SIGN)
            heard.set()
            return said + _read_until(connection, b"{}")

    said = _ask(tmp_path / "s", late, listen)
    assert isinstance(said, bytes)
    assert said.replace(SIGN, b"").startswith(b"HTTP/1.1 200")


def test_a_stream_gives_signs_of_life_among_its_lines(tmp_path: Path) -> None:
    heard = threading.Event()

    async def lines() -> AsyncGenerator[bytes]:
        yield b"one\n"
        await asyncio.to_thread(heard.wait, 30)
        yield b"two\n"

    async def stream(request: Request) -> Response:
        return Response(lines(), "text/plain")

    def listen(client: Client) -> bytes:
        with _asked(tmp_path / "s", "Heartbeat: 1\r\n") as connection:
            said = _read_until(connection, b"\0\r\n1\r\n\0\r\n")
            heard.set()
            return said + _read_until(connection, b"two\n")

    assert b"one\n" in bytes(_ask(tmp_path / "s", stream, listen))  # type: ignore[call-overload]


def test_signs_of_life_are_no_part_of_what_a_stream_says(tmp_path: Path) -> None:
    async def lines() -> AsyncGenerator[bytes]:
        for piece in (b'{"n"', b"\0", b": 1}\n", b"\0", b'{"n": 2}'):
            yield piece

    async def stream(request: Request) -> Response:
        return Response(lines(), "application/jsonl")

    assert _ask(tmp_path / "s", stream, lambda client: list(client.stream("/v1/events"))) == [{"n": 1}, {"n": 2}]


def test_a_daemon_that_says_nothing_is_told_apart_from_one_that_is_not_there(tmp_path: Path) -> None:
    with _listening(tmp_path / "s"), pytest.raises(DaemonSilent) as caught:
        Client(tmp_path / "s", silence_s=0.1).get("/v1/status")
    assert f"(pid {os.getpid()})" in str(caught.value)
    assert "systemctl restart plumb" in caught.value.remedy


def test_a_stream_without_a_line_ends_where_a_line_was_due(tmp_path: Path) -> None:
    async def lines() -> AsyncGenerator[bytes]:
        while True:
            yield b"\0"

    async def stream(request: Request) -> Response:
        return Response(lines(), "text/plain")

    with pytest.raises(DaemonSilent):
        _ask(tmp_path / "s", stream, lambda client: list(client.lines("GET", "/v1/events", None, within_s=0.1)))


def test_a_body_that_is_not_json_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a JSON object"):
        _ask(tmp_path / "s", _echo, lambda client: client.post("/v1/plan", [1]))


def test_only_root_and_the_group_may_open_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    mode = _ask(path, _echo, lambda client: os.stat(path))
    assert isinstance(mode, os.stat_result)
    assert stat.S_IMODE(mode.st_mode) == 0o660
    assert (mode.st_uid, mode.st_gid) == (0, 0)


def test_an_unknown_group_is_refused_before_anything_listens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no group 'nobody-has-this'"):
        asyncio.run(serve(tmp_path / "s", "nobody-has-this", _echo))
    assert not (tmp_path / "s").exists()


def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("stale")
    assert _ask(tmp_path / "s", _echo, lambda client: client.answers()) is True


def test_nobody_listening_is_said_with_the_next_step(tmp_path: Path) -> None:
    client = Client(tmp_path / "none")
    assert not client.answers()
    with pytest.raises(DaemonUnreachable) as caught:
        client.get("/v1/status")
    assert caught.value.remedy == "start it: plumb daemon"
