"""What is said of a plan and of what was applied: the same whether the daemon or a process of its own says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reconciler.engine.plan import Plan
from reconciler.engine.record import Record
from reconciler.engine.table import Table
from reconciler.host.absent import Absent, absent, named
from reconciler.host.facts import identity_count
from reconciler.host.listing import Listing
from reconciler.host.target import Target


def plan_answer(
    plan: Plan, target: Target, tables: Mapping[str, Table], *, rows: bool, applied: Target | None = None
) -> dict[str, Any]:
    """As JSON values. `target` is the plan's own, so that rules that come with it have their names.

    `identities`: how many label sets the workloads of the commit have, and of the `applied` one (None: not known).
    """
    return {
        "commit": plan.commit,
        "base": plan.base,
        "digest": plan.digest,
        "counts": {table: asdict(counts) for table, counts in plan.counts.items()},
        "text": plan.render(rows=rows, fields=Listing(target, tables).fields()),
        "plan": plan.to_document(),
        "identities": {
            "before": identity_count(applied.snapshot) if applied else None,
            "after": identity_count(target.snapshot),
        },
        "absent": [one.to_json() for one in absent(target).workloads],
    }


def applied_answer(record: Record | None, commit: str, held: str, missing: Absent) -> dict[str, Any]:
    """`record` None: nothing had to change. `missing`: what waits for its namespace."""
    return {
        "commit": commit,
        "changed": record is not None,
        "held": held,
        "counts": {table: asdict(counts) for table, counts in record.counts.items()} if record else {},
        "duration_ms": round(record.duration_ms, 3) if record else 0.0,
        "notes": list(named(missing.workloads)),
    }
