"""What commands ask of a host, in one vocabulary: the answers of the daemon's API, wherever they come from."""

from __future__ import annotations

from typing import Any, Protocol

from reconciler.daemon.client import Client

Answer = dict[str, Any]


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


class DaemonBackend:
    """The daemon's API, path by path."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def status(self) -> Answer:
        answer: Answer = self._client.get("/v1/status")
        return answer

    def cluster(self) -> Answer:
        answer: Answer = self._client.get("/v1/cluster")
        return answer

    def history(self, limit: int) -> list[Answer]:
        return _items(self._client.get("/v1/history", limit=limit))

    def endpoints(self, everywhere: bool = False) -> list[Answer]:
        return _items(self._client.get("/v1/endpoints", **({"everywhere": 1} if everywhere else {})))

    def nodes(self) -> list[Answer]:
        return _items(self._client.get("/v1/nodes"))

    def forget(self, node: str) -> Answer:
        return self._post("/v1/nodes/forget", {"node": node})

    def identities(self) -> list[Answer]:
        return _items(self._client.get("/v1/identities"))

    def services(self) -> list[Answer]:
        return _items(self._client.get("/v1/services"))

    def tables(self) -> dict[str, int]:
        return dict(self._client.get("/v1/tables"))

    def rows(self, table: str) -> list[Answer]:
        return _items(self._client.get(f"/v1/tables/{table}"))

    def plan(self, revision: str | None, rows: bool) -> Answer:
        return self._post("/v1/plan", _named(revision, rows=rows))

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
