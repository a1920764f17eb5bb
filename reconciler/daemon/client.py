"""The other side of the daemon's socket: for the command line, the Ansible modules and the hooks.

Only the standard library, so that a command that merely asks the daemon starts quickly.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from reconciler import errors
from reconciler.daemon.heartbeat import HEADER, SILENCE_S, STREAM_SIGN

T = TypeVar("T")

_PIECE = 1 << 16
_CLASSES: dict[str, type[errors.PlumbError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.PlumbError)
}


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket. `pid` is the daemon's, 0 before there is a connection."""

    pid = 0

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
        self.pid = struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


class Client:
    """Requests to one daemon. Each raises DaemonUnreachable, or the error that the daemon answered with.

    A daemon at work gives signs of life; one that gives none for `silence_s` raises DaemonSilent.
    """

    def __init__(self, path: Path, silence_s: float = SILENCE_S) -> None:
        self._path = path
        self._silence_s = silence_s

    def answers(self) -> bool:
        """Whether somebody accepts connections on the socket. Raises PermissionMissing if we may not ask."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.settimeout(1.0)
            probe.connect(str(self._path))
        except PermissionError as error:
            raise _forbidden(self._path) from error
        except OSError:
            return False
        finally:
            probe.close()
        return True

    def get(self, path: str, **query: Any) -> Any:
        return self._json("GET", path + (f"?{urlencode(query)}" if query else ""), None)

    def post(self, path: str, body: Any) -> Any:
        return self._json("POST", path, body)

    def stream(self, path: str, **query: Any) -> Iterator[Any]:
        """One JSON value a line, until the daemon ends."""
        for line in self.lines("GET", path + (f"?{urlencode(query)}" if query else ""), None):
            yield json.loads(line)

    def lines(self, method: str, path: str, body: Any, within_s: float = math.inf) -> Iterator[str]:
        """The answer's lines as they come, each `within_s` of the one before."""
        connection = _Connection(self._path, self._silence_s)
        with self._request(connection, method, path, body) as response:
            partial, heard = b"", time.monotonic()
            while piece := self._heard(connection, lambda: response.read1(_PIECE)):
                if said := piece.replace(STREAM_SIGN, b""):
                    *lines, partial = (partial + said).split(b"\n")
                    yield from (line.decode() for line in lines)
                    heard = time.monotonic()
                elif time.monotonic() - heard > within_s:
                    raise self._silent(connection)
            if partial:
                yield partial.decode()

    def _json(self, method: str, path: str, body: Any) -> Any:
        connection = _Connection(self._path, self._silence_s)
        with self._request(connection, method, path, body) as response:
            return json.loads(self._heard(connection, response.read))

    def _request(self, connection: _Connection, method: str, path: str, body: Any) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Connection": "close", HEADER: "1"}

        def ask() -> http.client.HTTPResponse:
            connection.request(method, path, content, headers)
            return connection.getresponse()

        response = self._heard(connection, ask)
        if response.status >= 400:
            raise _reported(self._heard(connection, response.read))
        return response

    def _heard(self, connection: _Connection, hear: Callable[[], T]) -> T:
        try:
            return hear()
        except TimeoutError as error:
            raise self._silent(connection) from error
        except PermissionError as error:
            raise _forbidden(self._path) from error
        except (OSError, http.client.HTTPException) as error:
            raise errors.DaemonUnreachable(f"no daemon answers on {self._path}: {error}") from error

    def _silent(self, connection: _Connection) -> errors.DaemonSilent:
        pid = connection.pid
        if pid and _is_stopped(pid):
            return errors.DaemonSilent(
                f"the daemon of this host (pid {pid}) is stopped and does not answer; "
                "what it was asked to do it may still do when it goes on",
                remedy=f"let it go on: kill -CONT {pid}",
            )
        return errors.DaemonSilent(
            f"the daemon{f' (pid {pid})' if pid else ''} on {self._path} does not answer: it is stopped or busy; "
            "what it was asked to do it may still do"
        )


def _is_stopped(pid: int) -> bool:
    """By a signal or a debugger: proc_pid_stat(5)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")


def _forbidden(path: Path) -> errors.PermissionMissing:
    return errors.PermissionMissing(
        f"permission denied: {path} is open to root and to the group of the configuration only",
        remedy="run as root, or as a member of that group: sudo plumb ...",
    )


def _reported(content: bytes) -> errors.PlumbError:
    """The daemon's error as the exception that it was there."""
    try:
        answer = json.loads(content)
        message, kind, remedy = answer["error"], answer["kind"], answer["remedy"]
    except (ValueError, KeyError, TypeError):
        return errors.DaemonUnreachable(f"the daemon answered with something else than its API: {content[:200]!r}")
    if kind == "ManifestError":
        return errors.ManifestError(errors.Fault(**fault) for fault in answer["faults"])
    return _CLASSES.get(kind, errors.PlumbError)(message, remedy=remedy)
