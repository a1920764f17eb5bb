"""What maps can hold: checked before rows are built, and the error names who fills them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.compile.cookies import RuleInfo
from reconciler.errors import CompileError

NAMED = 5  # contributors that an error names


@dataclass(frozen=True, slots=True)
class Budget:
    """Most rows of one subject's policy map (both directions together), of all subjects together, and of the ipcache.

    `subject_rows` and `ipcache_rows` are what the maps hold; `policy_rows` keeps the kernel's memory within bounds, at
    about 100 bytes a row. So are `frontend_rows` (of each family), `service_rows` and `backend_rows`; until a commit
    is done, versions and backends of the one before it are there too. So are CIDRs of the prefilter, whose maps hold
    twice `prefilter_rows` (of each family).
    """

    subject_rows: int = 65536
    policy_rows: int = 2_000_000
    ipcache_rows: int = 512_000
    frontend_rows: int = 131_072
    service_rows: int = 64_000
    backend_rows: int = 262_144
    prefilter_rows: int = 131_072


def check_policy(what: str, rows_by_cookie: Mapping[int, int], infos: Mapping[int, RuleInfo], limit: int) -> None:
    """`rows_by_cookie`: cookie -> rows it causes. Raises CompileError naming the rules with the most rows."""
    total = sum(rows_by_cookie.values())
    if total <= limit:
        return
    by_rule: Counter[str] = Counter()
    place: dict[str, str] = {}
    for cookie, rows in rows_by_cookie.items():
        info = infos[cookie]
        by_rule[info.reference] += rows
        place.setdefault(info.reference, f"{info.origin.path}:{info.origin.line}")
    biggest = "\n".join(f"  {rows} rows: {name} at {place[name]}" for name, rows in by_rule.most_common(NAMED))
    raise CompileError(
        f"the policy of {what} needs {total} rows, over the limit of {limit}; most come from\n{biggest}",
        remedy="select fewer peers, or peers by an entity or a CIDR instead of by label",
    )


def check_ipcache(rows_by_cause: Mapping[str, int], budget: Budget) -> None:
    """`rows_by_cause`: what the rows are for -> how many. Raises CompileError."""
    total = sum(rows_by_cause.values())
    if total <= budget.ipcache_rows:
        return
    biggest = "\n".join(f"  {rows} rows: {cause}" for cause, rows in Counter(rows_by_cause).most_common(NAMED))
    raise CompileError(f"the ipcache needs {total} rows, over the limit of {budget.ipcache_rows}:\n{biggest}")


def check_services(rows: Mapping[str, int], budget: Budget) -> None:
    """`rows`: table -> how many it would have. Raises CompileError."""
    limits = {"frontends": budget.frontend_rows, "services": budget.service_rows, "backends": budget.backend_rows}
    for table, limit in limits.items():
        if rows[table] > limit:
            raise CompileError(
                f"services need {rows[table]} rows of {table}, over the limit of {limit}",
                remedy="serve fewer ports of fewer services",
            )
