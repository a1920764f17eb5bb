"""How all hosts of the cluster are, by their own words in the store: `plumb status --cluster`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from reconciler.errors import RepositoryError, StoreError
from reconciler.host.host import Host
from reconciler.store.registrations import nodes_prefix, registrations
from reconciler.store.reports import Pushed, Report, last_pushed, reports


def cluster_status(host: Host) -> dict[str, Any]:
    """JSON-ready: `newest` is the commit that all should run, `nodes` has one for each node of the commit.

    A node is `behind` while it runs another commit, and `away` when its daemon's lease has ended. Raises StoreError,
    and if this host never applied a commit.
    """
    if host.mirrored is None:
        host.recall()
    if host.mirrored is None or host.target is None:
        raise StoreError("this host never applied a commit, so it knows of no cluster", remedy="see: plumb status")
    store, cluster = host.mirrored
    alive = registrations(store.range(nodes_prefix(cluster)).items)
    pushed, (told, _) = last_pushed(store, cluster), reports(store, cluster)
    newest = _newest(host, pushed)
    names = sorted({*host.target.snapshot.nodes, *told})
    known = host.target.snapshot.nodes
    nodes = [
        {**_node(name, told.get(name), newest), "away": name not in alive, "known": name in known} for name in names
    ]
    push = {"commit": pushed.commit, "time": pushed.time, "host": pushed.host} if pushed else None
    return {"cluster": cluster, "newest": newest, "pushed": push, "nodes": nodes}


def _newest(host: Host, pushed: Pushed | None) -> str:
    """The branch's commit, unless a push was announced that has not come here yet."""
    if pushed is not None:
        try:
            host.resolve(pushed.commit)
        except RepositoryError:
            return pushed.commit
    with suppress(RepositoryError):
        return host.resolve(host.config.ref)
    return host.base


def _node(name: str, report: Report | None, newest: str) -> dict[str, Any]:
    if report is None:
        return {"node": name, "commit": "", "state": "", "behind": True, "seen": ""}
    return {
        "node": name,
        "commit": report.running,
        "state": report.state,
        "since": report.since,
        "behind": report.running != newest,
        "looked_at": report.commit,
        "result": report.result,
        "error": report.error,
        "time": report.time,
        "seen": report.seen,
        "version": report.version,
        "unreachable": list(report.unreachable),
    }
