"""The other side of the daemon's socket: for the command line, the Ansible modules and the hooks.

Only the standard library, so that a command that merely asks the daemon starts quickly.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from reconciler import errors

_CLASSES: dict[str, type[errors.PlumbError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.PlumbError)
}


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Requests to one daemon. Each raises DaemonUnreachable, or the error that the daemon answered with."""

    def __init__(self, path: Path, timeout_s: float | None = 60.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def answers(self) -> bool:
        """Whether somebody accepts connections on the socket."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.settimeout(1.0)
            probe.connect(str(self._path))
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
        for line in self.lines("GET", path + (f"?{urlencode(query)}" if query else ""), None, timeout_s=None):
            yield json.loads(line)

    def lines(self, method: str, path: str, body: Any, timeout_s: float | None) -> Iterator[str]:
        """The answer's lines as they come."""
        response = self._request(method, path, body, timeout_s)
        with response:
            for line in response:
                yield line.decode().rstrip("\n")

    def _json(self, method: str, path: str, body: Any) -> Any:
        with self._request(method, path, body, self._timeout_s) as response:
            return json.loads(response.read())

    def _request(self, method: str, path: str, body: Any, timeout_s: float | None) -> http.client.HTTPResponse:
        connection = _Connection(self._path, timeout_s)
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, content, {"Content-Type": "application/json", "Connection": "close"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise errors.DaemonUnreachable(f"no daemon answers on {self._path}: {error}") from error
        if response.status >= 400:
            raise _reported(response.read())
        return response


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
