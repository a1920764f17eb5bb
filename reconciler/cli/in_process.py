"""The host opened in this process, answering as its daemon would; for a host without a daemon. Needs root."""

from __future__ import annotations

import json

from reconciler.cli.backend import Answer
from reconciler.engine.plan import Plan
from reconciler.engine.record import Record, to_plain
from reconciler.errors import UsageError
from reconciler.host import Host
from reconciler.host.answers import applied_answer, plan_answer
from reconciler.host.cluster_status import cluster_status
from reconciler.host.flow_trace import flow_trace


class HostBackend:
    def __init__(self, host: Host) -> None:
        self._host = host

    def status(self) -> Answer:
        return self._host.status()

    def cluster(self) -> Answer:
        return cluster_status(self._host)

    def history(self, limit: int) -> list[Answer]:
        return [to_plain(record) for record in self._host.journal.history(limit)]

    def endpoints(self, everywhere: bool = False) -> list[Answer]:
        return self._host.listing().endpoints(everywhere)

    def nodes(self) -> list[Answer]:
        return self._host.nodes()

    def forget(self, node: str) -> Answer:
        return {"keys": self._host.forget(node)}

    def identities(self) -> list[Answer]:
        return self._host.listing().identities()

    def services(self) -> list[Answer]:
        return self._host.listing().services()

    def tables(self) -> dict[str, int]:
        return self._host.row_counts()

    def rows(self, table: str) -> list[Answer]:
        if table not in self._host.tables:
            raise UsageError(f"there is no table {table}", remedy=f"there are {', '.join(self._host.tables)}")
        return self._host.listing().rows(table)

    def plan(self, revision: str | None, rows: bool) -> Answer:
        target = self._host.aim(self._revision(revision), preview=True)
        return plan_answer(self._host.compare(target), target, self._host.tables, rows=rows, applied=self._host.target)

    def trace(self, source: str, destination: str, port: str, revision: str | None) -> Answer:
        return flow_trace(self._host, source, destination, port, revision or self._host.base)

    def apply(self, plan: Answer) -> Answer:
        record = self._host.apply_on_request(Plan.from_json(json.dumps(plan), self._host.tables))
        return self._applied(record, record.commit)

    def converge(self, revision: str | None) -> Answer:
        commit = self._host.resolve(self._revision(revision))
        return self._applied(self._host.converge_on_request(commit), commit)

    def rollback(self, commit: str | None) -> Answer:
        record = self._host.rollback(commit)
        return self._applied(record, self._host.base)

    def _revision(self, revision: str | None) -> str:
        return revision or self._host.config.ref

    def _applied(self, record: Record | None, commit: str) -> Answer:
        return applied_answer(record, commit, self._host.hold.held, self._host.absent)
