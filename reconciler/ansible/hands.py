"""Who does it: the daemon where one answers, otherwise this process. Both say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.config import Config
from reconciler.daemon.client import Client

if TYPE_CHECKING:
    from reconciler.host import Host


Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """`counts`: table -> `+1 ~0 -0`. `text` has a line for every row; '' if no row changes."""

    commit: str
    base: str
    counts: Mapping[str, str]
    text: str


class Hands(Protocol):
    def status(self) -> Answer: ...

    def endpoints(self) -> list[Answer]: ...

    def plan(self, commit: str, environment: Mapping[str, str]) -> Planned:
        """Writes nothing. `environment` may name a quarantine."""
        ...

    def converge(self, commit: str) -> float:
        """Milliseconds that it took."""
        ...

    def release(self) -> None:
        """Hold no commit back any more."""
        ...


class DaemonHands:
    """Through the daemon's API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def status(self) -> Answer:
        answer: Answer = self._client.get("/v1/status")
        return answer

    def endpoints(self) -> list[Answer]:
        return list(self._client.get("/v1/endpoints"))

    def plan(self, commit: str, environment: Mapping[str, str]) -> Planned:
        asked = {"revision": commit, "rows": True, "environment": dict(environment)}
        answer = self._client.post("/v1/plan", asked)
        return _planned(answer)

    def converge(self, commit: str) -> float:
        return float(self._client.post("/v1/apply", {"revision": commit})["duration_ms"])

    def release(self) -> None:
        self._client.post("/v1/resume", {})


class OwnHands:
    """In this process: the engine under the host's lock."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def status(self) -> Answer:
        return self._host.status()

    def endpoints(self) -> list[Answer]:
        return self._host.listing().endpoints()

    def plan(self, commit: str, environment: Mapping[str, str]) -> Planned:
        from reconciler.host.answers import plan_answer

        target = self._host.aim(commit, environment, preview=True)
        return _planned(plan_answer(self._host.compare(target), target, self._host.tables, rows=True))

    def converge(self, commit: str) -> float:
        record = self._host.converge(commit)
        return record.duration_ms if record else 0.0

    def release(self) -> None:
        self._host.resume()


def _planned(answer: Answer) -> Planned:
    counts = {table: f"+{one['added']} ~{one['changed']} -{one['removed']}" for table, one in answer["counts"].items()}
    return Planned(answer["commit"], answer["base"], counts, answer["text"])


def daemon(config: Config) -> Client | None:
    """The host's daemon if one answers."""
    client = Client(config.socket)
    return client if client.answers() else None


@contextmanager
def hands(config: Config, client: Client | None) -> Iterator[Hands]:
    """Imports the kernel's tables only where there is no daemon: that costs more than it takes to ask one."""
    if client is not None:
        yield DaemonHands(client)
        return
    from reconciler.host import Host

    with Host.open(config) as host:
        yield OwnHands(host)
