"""What hosts tell each other of commits: which one was pushed, and what became of it on each of them.

    .../revision                  the newest push, written by the daemon whose hooks took it; the others wake up by it
    ...:unfollowed/results/NODE   the node's own report, replaced with every commit it looks at and every change of its
                                  state: 1,000 hosts say it after each push, and do not have to hear it from each other

Neither has a lease: a host that is gone leaves its last words. Times are those of the host that wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from reconciler.store.protocol import Event, Store, root, unfollowed

T = TypeVar("T", "Pushed", "Report")


@dataclass(frozen=True, slots=True)
class Pushed:
    """`time`: ISO 8601 in UTC. `host`: the node next to the repository that was pushed to."""

    commit: str
    ref: str
    time: str
    host: str


@dataclass(frozen=True, slots=True)
class Report:
    """`commit`, `result`, `error`, `remedy`, `counts`, `duration_ms`: what became of the commit that the node looked at
    last.

    `running`: the commit that it enforces, `since` when. `state`: in one word, as `plumb status` has it. `seen`: when
    this was written; it is written again now and then. `unreachable`: nodes that it does not reach, in words.
    """

    node: str
    commit: str
    result: str
    time: str
    running: str = ""
    since: str = ""
    state: str = ""
    seen: str = ""
    version: str = ""
    error: str = ""
    duration_ms: float = 0.0
    counts: Mapping[str, str] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)
    remedy: str = ""


def pushed_key(cluster: str) -> str:
    return f"{root(cluster)}revision"


def reports_prefix(cluster: str) -> str:
    return f"{unfollowed(cluster)}results/"


def announce(store: Store, cluster: str, pushed: Pushed) -> None:
    """Raises StoreError."""
    store.put(pushed_key(cluster), _encoded(pushed))


def last_pushed(store: Store, cluster: str) -> Pushed | None:
    """Raises StoreError."""
    item = store.get(pushed_key(cluster))
    return as_pushed(item.value) if item else None


def tell(store: Store, cluster: str, report: Report) -> None:
    """Raises StoreError."""
    store.put(reports_prefix(cluster) + quote(report.node, safe=""), _encoded(report))


def reports(store: Store, cluster: str) -> tuple[dict[str, Report], int]:
    """node -> its report; and the revision of the store from which to watch. Raises StoreError."""
    found = store.range(reports_prefix(cluster))
    told = (as_report(item.value) for item in found.items)
    return {one.node: one for one in told if one is not None}, found.revision


def retract(store: Store, cluster: str, node: str) -> None:
    """A node that the cluster no longer has is forgotten. Raises StoreError."""
    store.delete(reports_prefix(cluster) + quote(node, safe=""))


def node_of(event: Event) -> str:
    return unquote(event.key.rpartition("/")[2])


def as_pushed(value: bytes | None) -> Pushed | None:
    """None for what a later version may write and this one cannot read."""
    return _decoded(Pushed, value)


def as_report(value: bytes | None) -> Report | None:
    return _decoded(Report, value)


def _encoded(one: Pushed | Report) -> bytes:
    return json.dumps(asdict(one), sort_keys=True).encode()


def _decoded(kind: type[T], value: bytes | None) -> T | None:
    try:
        content: dict[str, Any] = json.loads(value or b"null")
        known = {item.name for item in fields(kind)}
        return kind(**{name: one for name, one in content.items() if name in known})
    except (ValueError, TypeError, AttributeError):
        return None
