"""Rows of the prefilter: what all documents that select this host's node deny, each CIDR once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from reconciler.compile.budget import NAMED, Budget
from reconciler.engine.remembered import Remembered
from reconciler.engine.rows import Columns
from reconciler.errors import CompileError
from reconciler.model.labels import Label
from reconciler.model.prefilter import PREFILTER_KEY, PREFILTER_VALUE, Prefilter, is_ipv4
from reconciler.model.snapshot import Snapshot

_MAPPED_BITS = 96


@dataclass(slots=True)
class PrefilterMemory:
    """The last rows: with 100,000 CIDRs making them takes 50 ms."""

    rows: Remembered[Columns] = field(default_factory=Remembered)


def selecting(snapshot: Snapshot, node: str) -> tuple[Prefilter, ...]:
    """Those for a node that deny anybody, in file and line order."""
    found = snapshot.nodes.get(node)
    labels = frozenset(Label("k8s", key, value) for key, value in found.labels.items()) if found else frozenset()
    return tuple(one for one in snapshot.prefilters if one.deny and one.nodes.matches(labels))


def prefilter(snapshot: Snapshot, node: str, memory: PrefilterMemory, budget: Budget | None = None) -> Columns:
    """Raises CompileError if there are more than the maps hold."""
    inputs = selecting(snapshot, node), budget or Budget()
    return memory.rows.get(inputs, partial(_rows, *inputs))


def _rows(prefilters: Sequence[Prefilter], budget: Budget) -> Columns:
    every = np.concatenate([np.empty(0, PREFILTER_KEY), *(one.keys for one in prefilters)])
    of = np.repeat(np.arange(len(prefilters), dtype=np.int32), [len(one.keys) for one in prefilters])
    first = _first(every)
    keys, origin_of = every[first], of[first]
    ipv4 = is_ipv4(keys)
    for version, rows in ((4, ipv4), (6, ~ipv4)):
        _check(version, origin_of[rows], prefilters, budget.prefilter_rows)
    values = np.zeros(len(keys), PREFILTER_VALUE)
    values["length"] = keys["bits"] - np.where(ipv4, np.uint32(_MAPPED_BITS), np.uint32(0))
    return Columns(keys, values, tuple(one.origin for one in prefilters), origin_of)


def _first(keys: NDArray[np.void]) -> NDArray[np.intp]:
    """Where each CIDR stands first."""
    order = np.lexsort((keys["bits"], keys["low"], keys["high"]))
    ordered = keys[order]
    fresh = np.ones(len(keys), np.bool_)
    same = [ordered[name][1:] == ordered[name][:-1] for name in ("high", "low", "bits")]
    fresh[1:] = ~np.logical_and.reduce(same)
    return order[fresh]


def _check(version: int, origin_of: NDArray[np.int32], prefilters: Sequence[Prefilter], limit: int) -> None:
    if len(origin_of) <= limit:
        return
    counted = Counter(origin_of.tolist()).most_common(NAMED)
    biggest = "\n".join(
        f"  {rows} CIDRs: Prefilter/{prefilters[index].name} at {prefilters[index].origin}" for index, rows in counted
    )
    raise CompileError(
        f"Prefilters deny {len(origin_of)} IPv{version} CIDRs, over the limit of {limit}; most come from\n{biggest}",
        remedy="join neighbouring CIDRs, or select fewer nodes by nodeSelector",
    )
