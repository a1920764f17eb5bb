"""HTTP/1.1 on a unix socket, as little as the API needs: h11 knows the protocol, asyncio the socket.

One request a connection: the callers are on this host, and a connection costs them microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import json
import logging
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11

from reconciler.daemon import heartbeat
from reconciler.errors import Fault, ManifestError, PlumbError, UsageError

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 << 20  # a plan of a million rows is smaller
READ_TIMEOUT_S = 30.0
SOCKET_MODE = 0o660

_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that disk, then again")
_CONTINUE = h11.InformationalResponse(status_code=100, headers=[])
_SIGN = h11.Data(data=heartbeat.STREAM_SIGN)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    heartbeat: bool = False

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object. Raises UsageError."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise UsageError(f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise UsageError("the body must be a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Response:
    """`content` is the whole body, or its pieces as they come (each is sent at once)."""

    content: bytes | AsyncGenerator[bytes]
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = field(default=())


Respond = Callable[[Request], Awaitable[Response]]


def json_response(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value).encode(), status=status)


def error_response(error: PlumbError, status: int = 0) -> Response:
    """An error as its own JSON form; the client makes the same exception of it again. Status 0: as the error is."""
    faults: tuple[Fault, ...] = error.faults if isinstance(error, ManifestError) else ()
    value = {
        "error": str(error),
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "remedy": error.remedy,
        "faults": [asdict(fault) for fault in faults],
    }
    return json_response(value, status or (400 if isinstance(error, UsageError | ManifestError) else 409))


async def serve(path: Path, group: str, respond: Respond) -> asyncio.Server:
    """Listens on `path`, which only root and `group` may open; a left-over socket file is replaced.

    The file gets its mode before anyone may connect. Raises UsageError for a group that does not exist.
    """
    try:
        group_id = grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"there is no group {group!r} on this host", remedy=f"groupadd --system {group}") from None
    path.unlink(missing_ok=True)
    umask = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(lambda r, w: _converse(r, w, respond), path, start_serving=False)
    finally:
        os.umask(umask)
    os.chown(path, 0, group_id)
    path.chmod(SOCKET_MODE)
    await server.start_serving()
    return server


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        request = await asyncio.wait_for(_read_request(connection, reader), READ_TIMEOUT_S)
        if request is not None:
            with _alive(connection, writer, request, _CONTINUE, heartbeat.LONGEST_ANSWER_S):
                response = await _answer(request, respond)
            alive = _alive(connection, writer, request, _SIGN) if not isinstance(response.content, bytes) else None
            await _write_response(connection, reader, writer, response, alive)
    except h11.RemoteProtocolError as error:
        with contextlib.suppress(ConnectionError, h11.LocalProtocolError):  # gone, or in the middle of an answer
            refusal = error_response(UsageError(f"not a request: {error}"), error.error_status_hint)
            await _write_response(connection, reader, writer, refusal)
    except (TimeoutError, ConnectionError) as error:
        log.debug("connection ended early error=%s", error)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.contextmanager
def _alive(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    request: Request,
    sign: h11.Event,
    until_s: float = math.inf,
) -> Iterator[None]:
    """Sends the sign at once and again and again, where it is asked for and what was sent before has gone out."""

    async def beat() -> None:
        beats = 0
        while beats * heartbeat.EVERY_S < until_s and not writer.is_closing():
            if not writer.transport.get_write_buffer_size():
                writer.write(connection.send(sign) or b"")
            beats += 1
            await asyncio.sleep(heartbeat.EVERY_S)

    task = asyncio.create_task(beat()) if request.heartbeat else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _answer(request: Request, respond: Respond) -> Response:
    try:
        return await respond(request)
    except PlumbError as error:
        return error_response(error)
    except OSError as error:  # a full disk, a file that is gone
        log.error("request failed method=%s path=%s error=%s", request.method, request.path, error)
        return error_response(PlumbError(str(error), remedy=_REMEDIES.get(error.errno or 0, "")))
    except Exception as error:
        log.exception("request failed method=%s path=%s", request.method, request.path)
        return error_response(PlumbError(f"internal error: {type(error).__name__}: {error}"))


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """None if the other side said nothing."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
            _refuse_large(int(dict(head.headers).get(b"content-length", 0)))
        elif isinstance(event, h11.Data):
            body += event.data
            _refuse_large(len(body))
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body))
        else:
            return None


def _refuse_large(length: int) -> None:
    if length > MAX_BODY_BYTES:
        raise h11.RemoteProtocolError(f"the body is larger than {MAX_BODY_BYTES} bytes", 413)


def _request(head: h11.Request, body: bytes) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
    except ValueError as error:
        raise h11.RemoteProtocolError(f"the target is no path: {error}") from error
    beats = heartbeat.HEADER.lower().encode() in dict(head.headers)
    return Request(head.method.decode("ascii"), target.path, dict(parse_qsl(target.query)), body, beats)


async def _write_response(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    response: Response,
    alive: AbstractContextManager[None] | None = None,
) -> None:
    """`alive` holds while a stream is written."""
    headers = [("Content-Type", response.content_type), ("Connection", "close"), *response.headers]
    if isinstance(response.content, bytes):
        headers.append(("Content-Length", str(len(response.content))))
    head = h11.Response(status_code=response.status, headers=headers)
    await _send(connection, writer, head)
    if isinstance(response.content, bytes):
        await _send(connection, writer, h11.Data(data=response.content))
    else:
        with alive or contextlib.nullcontext():
            await _while_read(reader, _write_pieces(connection, writer, response.content))
    await _send(connection, writer, h11.EndOfMessage())


async def _write_pieces(
    connection: h11.Connection, writer: asyncio.StreamWriter, pieces: AsyncGenerator[bytes]
) -> None:
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            await _send(connection, writer, h11.Data(data=piece))


async def _while_read(reader: asyncio.StreamReader, writing: Coroutine[Any, Any, None]) -> None:
    """Raises ConnectionError when the other side goes away: by writing an idle stream would never notice."""
    written, gone = asyncio.create_task(writing), asyncio.create_task(_end_of(reader))
    try:
        await asyncio.wait((written, gone), return_when=asyncio.FIRST_COMPLETED)
        if not written.done():
            raise ConnectionResetError("the reader went away")
        written.result()
    finally:
        written.cancel()
        gone.cancel()
        await asyncio.gather(written, gone, return_exceptions=True)


async def _end_of(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, event: h11.Event) -> None:
    data = connection.send(event)
    if data:
        writer.write(data)
        await writer.drain()
