"""What commands ask of a host, in one vocabulary: the answers of the daemon's API, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from reconciler.daemon.client import Client
from reconciler.errors import DaemonSilent, DaemonUnreachable

Answer = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Backend(Protocol):
    """Every answer is JSON-ready. `plan` writes nothing; `apply` takes the plan that `plan` answered with."""

    def status(self) -> Answer: ...

    def cluster(self) -> Answer: ...

    def history(self, limit: int) -> list[Answer]: ...

    def endpoints(self, everywhere: bool = False) -> list[Answer]: ...

    def nodes(self) -> list[Answer]: ...

    def forget(self, node: str) -> Answer: ...

    def identities(self) -> list[Answer]: ...

    def services(self) -> list[Answer]: ...

    def tables(self) -> dict[str, int]: ...

    def rows(self, table: str) -> list[Answer]: ...

    def plan(self, revision: str | None, rows: bool) -> Answer: ...

    def trace(self, source: str, destination: str, port: str, revision: str | None) -> Answer: ...

    def apply(self, plan: Answer) -> Answer: ...

    def converge(self, revision: str | None) -> Answer: ...

    def rollback(self, commit: str | None) -> Answer: ...


Asking = Callable[Concatenate["DaemonBackend", P], T]


def _reading(ask: Asking[P, T]) -> Asking[P, T]:
    """What changes nothing is asked of the host itself where the daemon goes away before it has answered."""

    @wraps(ask)
    def asked(backend: DaemonBackend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return ask(backend, *args, **kwargs)
        except DaemonSilent:  # it is there, and what it holds may be half written
            raise
        except DaemonUnreachable:
            if backend.instead is None:
                raise
            answer: T = getattr(backend.instead(), ask.__name__)(*args, **kwargs)
            return answer

    return asked


class DaemonBackend:
    """The daemon's API, path by path. `instead` opens the host in this process; None: there is only the daemon."""

    def __init__(self, client: Client, instead: Callable[[], Backend] | None = None) -> None:
        self._client = client
        self.instead = instead

    @_reading
    def status(self) -> Answer:
        answer: Answer = self._client.get("/v1/status")
        return answer

    @_reading
    def cluster(self) -> Answer:
        answer: Answer = self._client.get("/v1/cluster")
        return answer

    @_reading
    def history(self, limit: int) -> list[Answer]:
        return _items(self._client.get("/v1/history", limit=limit))

    @_reading
    def endpoints(self, everywhere: bool = False) -> list[Answer]:
        return _items(self._client.get("/v1/endpoints", **({"everywhere": 1} if everywhere else {})))

    @_reading
    def nodes(self) -> list[Answer]:
        return _items(self._client.get("/v1/nodes"))

    def forget(self, node: str) -> Answer:
        return self._post("/v1/nodes/forget", {"node": node})

    @_reading
    def identities(self) -> list[Answer]:
        return _items(self._client.get("/v1/identities"))

    @_reading
    def services(self) -> list[Answer]:
        return _items(self._client.get("/v1/services"))

    @_reading
    def tables(self) -> dict[str, int]:
        return dict(self._client.get("/v1/tables"))

    @_reading
    def rows(self, table: str) -> list[Answer]:
        return _items(self._client.get(f"/v1/tables/{table}"))

    @_reading
    def plan(self, revision: str | None, rows: bool) -> Answer:
        return self._post("/v1/plan", _named(revision, rows=rows))

    @_reading
    def trace(self, source: str, destination: str, port: str, revision: str | None) -> Answer:
        body = {"from": source, "to": destination, "port": port, "revision": revision or ""}
        return self._post("/v1/trace", body)

    def apply(self, plan: Answer) -> Answer:
        return self._post("/v1/apply", {"plan": plan})

    def converge(self, revision: str | None) -> Answer:
        return self._post("/v1/apply", _named(revision))

    def rollback(self, commit: str | None) -> Answer:
        return self._post("/v1/rollback", {"commit": commit} if commit else {})

    def _post(self, path: str, body: Answer) -> Answer:
        answer: Answer = self._client.post(path, body)
        return answer


def _named(revision: str | None, **others: Any) -> Answer:
    """Without a revision the daemon takes the branch that it follows."""
    return {**others, **({"revision": revision} if revision else {})}


def _items(answer: Any) -> list[Answer]:
    return list(answer)
