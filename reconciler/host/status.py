"""What a host says of itself without a daemon: the commit that it is at and since when, what is held, what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from reconciler.config import Config
from reconciler.engine.journal import Journal
from reconciler.engine.record import Record
from reconciler.errors import KernelError
from reconciler.host.absent import absent_cgroups, absent_workloads
from reconciler.host.hold import Hold
from reconciler.host.ways import crosses_versions, way_taken
from reconciler.model.snapshot import Snapshot
from reconciler.source.watch import current


def host_status(
    config: Config,
    journal: Journal,
    applied: Sequence[Record],
    hold: Hold,
    snapshot: Snapshot | None,
    store: Mapping[str, Any],
) -> dict[str, Any]:
    """`applied`: newest first. `snapshot`: what the applied commit says, None if it cannot be read.

    `store`: how this host stands to the cluster's, empty if that is not known.
    """
    last = next(iter(journal.history(1)), None)
    return {
        "node": config.node,
        "commit": applied[0].commit if applied else "",
        "ref": config.ref,
        "repository": str(config.repository),
        "suspended": hold.suspended,
        "held": hold.held if current(config.repository, config.ref) in (None, hold.held) else "",
        "unfinished": journal.unfinished,
        "since": _since(applied),
        "last_result": last.result.value if last else "",
        "last_reason": last.reason if last else "",
        "last_time": last.time.isoformat() if last else "",
        "absent": _absent(config.node, snapshot),
        "direct_return": way_taken(snapshot.cluster, crosses=crosses_versions()) if snapshot else "",
        "store": dict(store),
    }


def _absent(node: str, snapshot: Snapshot | None) -> list[dict[str, Any]]:
    """As it is now; none where a namespace or a cgroup cannot be looked at, which the next pass says."""
    with suppress(KernelError):
        if snapshot is not None:
            return [one.to_json() for one in (*absent_workloads(snapshot, node), *absent_cgroups(snapshot, node))]
    return []


def _since(newest_first: Sequence[Record]) -> str:
    """When the host came to the commit that it is at; '' if it never had one."""
    present, since = "", ""
    for record in newest_first:
        if present not in ("", record.commit):
            break
        present, since = record.commit, record.time.isoformat(timespec="seconds")
    return since
