"""Policy of every subject of this host: one set of rows for each identity that a local workload has.

What a subject's rows depend on is compared with last time, by content: first whether its rules say what they said in
the same world, then whether they come to the same. Unchanged subjects keep their columns, and subjects with the same
rules share them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.backends import Resolved
from reconciler.compile.budget import Budget, check_policy
from reconciler.compile.contents import EGRESS, INGRESS, Content
from reconciler.compile.cookies import Infos
from reconciler.compile.stance import Context, Stance, Subject, stance
from reconciler.compile.subject_rows import SubjectRows, blocks, columns, rows_by_cookie
from reconciler.engine.rows import Columns
from reconciler.model.cluster import NamedPort
from reconciler.model.datapath import POLICY_KEY, POLICY_VALUE

_Key = tuple[int, Budget, Stance, Stance]


class _Said(NamedTuple):
    """What a subject's stances come from, if the world is the same."""

    ports: frozenset[NamedPort]
    always: bool
    host: bool
    health: bool
    rules: tuple[Content, ...]
    cookies: tuple[Mapping[str, int], ...]
    services: tuple[Resolved, ...]


class _Made(NamedTuple):
    said: _Said
    key: _Key
    rows: SubjectRows


@dataclass(slots=True)
class PolicyMemory:
    """subject -> what its rows were made from, and the rows; only of the last compile."""

    world: tuple[object, ...] = ()
    subjects: dict[int, _Made] = field(default_factory=dict)


def policy(
    subjects: Mapping[int, Subject], names: Mapping[int, str], context: Context, budget: Budget, memory: PolicyMemory
) -> Columns:
    """Rows of all subjects; `names`: subject -> what an error calls it. Raises CompileError over the budget."""
    world = _world(context, budget)
    unchanged = world == memory.world
    shared: dict[tuple[object, ...], _Made] = {}
    done: dict[int, _Made] = {}
    total = 0
    for number, subject in subjects.items():
        alike = (subject.ports, subject.always, subject.host, subject.health, *map(id, subject.rules))
        if alike not in shared:
            known = memory.subjects.get(number)
            said = _said(subject, context)
            if not (unchanged and known and known.said == said):
                key = _key(subject, context, budget)
                rows = known.rows if known and known.key == key else _rows(key, names[number], context)
                known = _Made(said, key, rows)
            shared[alike] = known
        done[number] = shared[alike]
        total += len(done[number].rows.keys)
        if total > budget.policy_rows:
            counts = _rows_by_cookie(made.rows for made in done.values())
            check_policy(f"{len(done)} of {len(subjects)} subjects", counts, context.cookies.infos, budget.policy_rows)
    memory.world, memory.subjects = world, done
    return _joined({number: made.rows for number, made in done.items()}, context.cookies.infos)


def _world(context: Context, budget: Budget) -> tuple[object, ...]:
    """What the stances of all subjects depend on, and the rows that come of them."""
    entries = context.entries
    settings = (context.enforcement, context.allow_localhost, context.cookies.settings)
    return (budget, context.index.version, entries.named, *settings)


def _said(subject: Subject, context: Context) -> _Said:
    contents = tuple(map(context.contents.__getitem__, map(id, subject.rules)))
    cookies = tuple(map(context.cookies.of_rule.__getitem__, map(id, subject.rules)))
    services = tuple([context.entries.backends.peers(peer) for content in contents for peer in content.services])
    return _Said(subject.ports, subject.always, subject.host, subject.health, contents, cookies, services)


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


def _joined(rows: Mapping[int, SubjectRows], infos: Infos) -> Columns:
    keys = _concatenated([one.keys for one in rows.values()], POLICY_KEY)
    values = _concatenated([one.values for one in rows.values()], POLICY_VALUE)
    keys["subject"] = np.repeat(_u32(rows), [len(one.keys) for one in rows.values()])
    cookies = _u32(infos.cookies)
    order = np.argsort(cookies)
    origin_of = order[np.searchsorted(cookies, values["cookie"], sorter=order)]
    return Columns(keys, values, tuple(infos.origins), origin_of.astype(np.int32))


def _concatenated(parts: list[NDArray[np.void]], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """As bytes: numpy looks at every field of every part otherwise."""
    return np.frombuffer(bytearray().join([part.data for part in parts]), dtype)


def _u32(numbers: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.fromiter(numbers, np.uint32)
