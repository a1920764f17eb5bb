"""One family of tables (routes and rules, say) as a commit has it, with the states of network resource modules.

Git is the only source of truth, so a task names rows and never spells them out: `replaced` makes the family as the
commit says, `merged` the same without removing, `deleted` takes our rows away, `gathered` and `rendered` only show.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from reconciler.ansible.hands import daemon
from reconciler.ansible.selection import Selection, restricted
from reconciler.ansible.settings import settings
from reconciler.ansible.shown import listing, shown
from reconciler.config import STORE_NAME, Config
from reconciler.daemon.client import Client
from reconciler.engine.apply import apply
from reconciler.engine.change import Delta
from reconciler.engine.diff import diff_rows
from reconciler.engine.lock import host_lock
from reconciler.engine.plan import Plan
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.errors import Busy, UsageError
from reconciler.host import Host
from reconciler.host.listing import Listing
from reconciler.host.target import Target

Result = dict[str, Any]

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "endpoint": ("links", "addresses", "neighbours", "endpoints"),
    "policy": ("ipcache", "policy"),
    "bpf_map": ("endpoints", "ipcache", "policy"),
    "bpf_program": ("programs", "attachments", "cgroups", "carriers"),
    "link": ("links",),
    "route": ("routes", "rules"),
}


def converge(family: str, parameters: Mapping[str, Any], check: bool) -> Result:
    """Raises any PlumbError; the host is then as it was."""
    config = settings(parameters)
    task = _Task(family, _tables(family, parameters), parameters)
    with _opened(config, check or parameters["state"] == "rendered") as host:
        if parameters["state"] == "rendered":
            target = host.aim(task.revision(host), preview=True)
            return {"changed": False, "rendered": task.only_shown(target, target.desired.tables, strict=True)}
        if parameters["state"] == "gathered":
            host.recall()
            live = {name: host.tables[name].live() for name in task.tables}
            return {"changed": False, "gathered": task.only_shown(host.target, live, strict=False)}
        return _written(task, host, check)


def _tables(family: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    tables = FAMILIES[family]
    wanted = parameters.get("maps") or tables
    unknown = set(wanted) - set(tables)
    if unknown:
        raise UsageError(f"maps: no map {', '.join(sorted(unknown))}; there are {', '.join(tables)}")
    return tuple(name for name in tables if name in wanted)


@contextmanager
def _opened(config: Config, reading: bool) -> Iterator[Host]:
    """A host that was never converged gets no state from somebody who only looks."""
    if not reading or config.state_directory.exists():
        with Host.open(config) as host:
            yield host
        return
    with (
        tempfile.TemporaryDirectory(prefix="plumb-") as folder,
        Host.open(replace(config, state_directory=Path(folder), store_file=Path(folder) / STORE_NAME)) as host,
    ):
        yield host


@dataclass(frozen=True, slots=True)
class _Task:
    family: str
    tables: tuple[str, ...]
    parameters: Mapping[str, Any]

    @property
    def state(self) -> str:
        return str(self.parameters["state"])

    def revision(self, host: Host) -> str:
        return host.resolve(self.parameters.get("commit") or host.config.ref)

    def selection(self, known: list[Target], listing: Listing) -> Selection | None:
        config = self.parameters.get("config")
        return None if config is None else Selection(config, known, listing.fields())

    def only_shown(self, target: Target | None, rows: Mapping[str, Rows], strict: bool) -> list[Result]:
        """Those of the rows that the task names; `strict`: each name must fit one."""
        rows = {name: rows[name] for name in self.tables}
        selection = self.selection(_known(target), listing(target, rows))
        if selection is not None:
            if strict:
                _refuse_missed(selection, {name: [one] for name, one in rows.items()})
            rows = {name: selection.of(name, one) for name, one in rows.items()}
        return shown(target, rows)


def _written(task: _Task, host: Host, check: bool) -> Result:
    client = daemon(host.config)
    if task.state == "deleted":
        host.recall()
        target, commit = host.target, ""
        plan = _emptying(task, host)
    else:
        commit = task.revision(host)
        target = host.aim(commit, preview=check or client is not None)
        plan = host.compare(target, task.tables, prune=task.state == "replaced")
    explained = Listing(target, host.tables)
    selection = task.selection(_known(target, host.target), explained)
    if selection is not None:
        if target and commit:
            _refuse_missed(selection, {n: [host.tables[n].live(), target.desired.tables[n]] for n in task.tables})
        plan = replace(plan, deltas=tuple(part for one in plan.deltas if (part := restricted(one, selection))))
    if plan and not check:
        _apply(task, host, client, plan, commit)
    return _result(plan, target, explained)


def _known(*targets: Target | None) -> list[Target]:
    return [one for one in targets if one is not None]


def _emptying(task: _Task, host: Host) -> Plan:
    """What takes every row of the family away; the host stays at its commit."""
    deltas: list[Delta] = []
    for name in task.tables:
        live = host.tables[name].live()
        nothing = live.take(slice(0, 0)) if isinstance(live, Columns) else DictRows({})
        if delta := diff_rows(name, nothing, live, complete=True):
            deltas.append(delta)
    return Plan(host.base, host.base, tuple(deltas))


def _apply(task: _Task, host: Host, client: Client | None, plan: Plan, commit: str) -> None:
    """Raises Busy where a daemon would put back what this does."""
    if client is None:
        lock = host_lock(host.config.run_directory / "lock", f"plumb_{task.family}")
        # A part of a commit does not make it the applied one, not even on a host that has none.
        apply(replace(plan, commit=plan.base), host.tables, host.journal, lock=lock)
        return
    at = client.get("/v1/status")["commit"]
    if commit != at:
        raise Busy(
            f"the daemon of {host.config.node} keeps the {task.family} family as commit {at[:12] or 'none'} has it,"
            " and would put back what this task does",
            remedy="converge the whole host with plumb_reconcile, or stop the daemon; enforcement stays",
        )
    client.post("/v1/apply", {"plan": plan.to_document()})


def _refuse_missed(selection: Selection, tables: Mapping[str, list[Rows]]) -> None:
    """A name that fits nothing is a mistake, not a success."""
    missed = selection.missed(tables)
    if missed:
        raise UsageError(f"config: no row of {', '.join(tables)} is {', '.join(str(_given(one)) for one in missed)}")


def _given(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if value is not None}


def _result(plan: Plan, target: Target | None, explained: Listing) -> Result:
    text = plan.render(rows=True, fields=explained.fields())
    return {
        "changed": bool(plan),
        "before": shown(target, {delta.table: _before(delta) for delta in plan.deltas}),
        "after": shown(target, {delta.table: _after(delta) for delta in plan.deltas}),
        "counts": {table: str(counts) for table, counts in plan.counts.items()},
        "changes": text.splitlines(),
        "diff": {"prepared": f"{text}\n"} if text else {},
    }


def _before(delta: Delta) -> Rows:
    return delta.before if isinstance(delta.before, Columns) else DictRows(delta.before)


def _after(delta: Delta) -> Rows:
    return delta.after if isinstance(delta.after, Columns) else DictRows(delta.after)
