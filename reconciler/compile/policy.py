"""Policy of every subject of this host: one set of rows for each identity that a local workload has.

What a subject's rows depend on is compared with last time, by content; unchanged subjects keep their columns, and
subjects with the same rules share them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from reconciler.compile.budget import Budget, check_policy
from reconciler.compile.cookies import EGRESS, INGRESS, RuleInfo
from reconciler.compile.stance import Context, Stance, Subject, stance
from reconciler.compile.subject_rows import SubjectRows, blocks, columns, rows_by_cookie
from reconciler.engine.rows import Columns
from reconciler.model.datapath import POLICY_KEY, POLICY_VALUE

_Key = tuple[int, Budget, Stance, Stance]


@dataclass(slots=True)
class PolicyMemory:
    """subject -> what its rows were made from, and the rows; only of the last compile."""

    subjects: dict[int, tuple[_Key, SubjectRows]] = field(default_factory=dict)


def policy(
    subjects: Mapping[int, Subject], names: Mapping[int, str], context: Context, budget: Budget, memory: PolicyMemory
) -> Columns:
    """Rows of all subjects; `names`: subject -> what an error calls it. Raises CompileError over the budget."""
    shared: dict[tuple[object, ...], tuple[_Key, SubjectRows]] = {}
    done: dict[int, tuple[_Key, SubjectRows]] = {}
    total = 0
    for number, subject in subjects.items():
        alike = (subject.ports, subject.always, *map(id, subject.rules))
        if alike not in shared:
            key = _key(subject, context, budget)
            known = memory.subjects.get(number)
            same = known is not None and known[0] == key
            shared[alike] = known if known and same else (key, _rows(key, names[number], context))
        done[number] = shared[alike]
        total += len(done[number][1].keys)
        if total > budget.policy_rows:
            counts = _rows_by_cookie(rows for _, rows in done.values())
            check_policy(f"{len(done)} of {len(subjects)} subjects", counts, context.cookies.infos, budget.policy_rows)
    memory.subjects = done
    return _joined({number: rows for number, (_, rows) in done.items()}, context.cookies.infos)


def _key(subject: Subject, context: Context, budget: Budget) -> _Key:
    return (context.index.epoch, budget, stance(subject, INGRESS, context), stance(subject, EGRESS, context))


def _rows(key: _Key, name: str, context: Context) -> SubjectRows:
    _, budget, ingress, egress = key
    found = blocks(ingress, context.index, egress=False) + blocks(egress, context.index, egress=True)
    check_policy(name, rows_by_cookie(found), context.cookies.infos, budget.subject_rows)
    return columns(found)


def _rows_by_cookie(rows: Iterable[SubjectRows]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for one in rows:
        cookies, times = np.unique(one.values["cookie"], return_counts=True)
        counts.update(dict(zip(cookies.tolist(), times.tolist(), strict=True)))
    return counts


def _joined(rows: Mapping[int, SubjectRows], infos: Mapping[int, RuleInfo]) -> Columns:
    keys = np.concatenate([np.empty(0, POLICY_KEY), *(one.keys for one in rows.values())])
    values = np.concatenate([np.empty(0, POLICY_VALUE), *(one.values for one in rows.values())])
    keys["subject"] = np.repeat(_u32(rows), [len(one.keys) for one in rows.values()])
    cookies = np.sort(_u32(infos))
    origins = tuple(infos[cookie].origin for cookie in cookies.tolist())
    return Columns(keys, values, origins, np.searchsorted(cookies, values["cookie"]).astype(np.int32))


def _u32(numbers: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.fromiter(numbers, np.uint32)
