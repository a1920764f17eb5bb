"""Which rows of a family a task speaks of: `config` names them by table, by key, by workload.

config: [{workload: default/web}, {table: routes, key: {destination: 192.0.2.0/24}}]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.change import ColumnDelta, Delta, DictDelta
from reconciler.engine.render import Fields
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.errors import UsageError
from reconciler.host.fields import prefix
from reconciler.host.target import Target


@dataclass(frozen=True, slots=True)
class Marks:
    """What rows of one workload can be told by."""

    netns: frozenset[str]
    devices: frozenset[str]
    addresses: frozenset[str]
    identities: frozenset[int]

    def of(self, key: Any, row: Any) -> bool:
        """Whether a row is the workload's."""
        if isinstance(key, np.void):
            return self._of_record(key)
        if isinstance(key, str) or hasattr(key, "ifname") or hasattr(row, "ifname"):
            devices = {key, getattr(key, "ifname", ""), getattr(row, "ifname", "")}
            if getattr(key, "netns", "") == "" and devices & self.devices:
                return True
        return getattr(key, "netns", "") in self.netns or str(key) in self.addresses

    def _of_record(self, key: np.void) -> bool:
        names = key.dtype.names or ()
        if "subject" in names:
            return int(key["subject"]) in self.identities
        if "high" in names:
            return str(prefix(int(key["high"]), int(key["low"]), int(key["bits"]))) in self.addresses
        return False


def marks(reference: str, targets: Iterable[Target]) -> Marks:
    """Of a workload in any of the commits. Raises UsageError where none has it."""
    known = [
        (one.snapshot.workloads[reference], one.facts.endpoints[reference])
        for one in targets
        if reference in one.facts.endpoints
    ]
    if not known:
        raise UsageError(f"config: there is no workload {reference!r}; it is named namespace/name")
    addresses = {str(one) for _, endpoint in known for one in (endpoint.address4, endpoint.address6) if one}
    return Marks(
        frozenset(workload.netns for workload, _ in known),
        frozenset(endpoint.ifname for _, endpoint in known if endpoint.ifname),
        frozenset(addresses),
        frozenset(endpoint.identity for _, endpoint in known),
    )


class Selection:
    """`fields(table, key or row)` is how rows are shown: `key` compares with that."""

    def __init__(self, config: Iterable[Mapping[str, Any]], targets: Iterable[Target], fields: Fields) -> None:
        """Raises UsageError for a workload that no commit knows."""
        known = list(targets)
        self._items = list(config)
        self._marks = {item["workload"]: marks(item["workload"], known) for item in self._items if item.get("workload")}
        self._fields = fields

    def __contains__(self, row: tuple[str, Any, Any]) -> bool:
        """Of (table, key, row)."""
        return any(self._fits(item, *row) for item in self._items)

    def of(self, table: str, rows: Rows) -> Rows:
        """The rows that are selected."""
        if isinstance(rows, Columns):
            keep = [(table, key, row) in self for key, row in pairs(rows)]
            return rows.take(np.flatnonzero(np.array(keep, np.bool_)))
        return DictRows({key: row for key, row in pairs(rows) if (table, key, row) in self}, rows.origins)

    def missed(self, tables: Mapping[str, Iterable[Rows]]) -> list[Mapping[str, Any]]:
        """Items that no row of these tables fits."""
        left = list(self._items)
        for table, several in tables.items():
            for key, row in (pair for rows in several for pair in pairs(rows)):
                left = [item for item in left if not self._fits(item, table, key, row)]
        return left

    def _fits(self, item: Mapping[str, Any], table: str, key: Any, row: Any) -> bool:
        if item.get("table") and item["table"] != table:
            return False
        if item.get("workload") and not self._marks[item["workload"]].of(key, row):
            return False
        return item.get("key") is None or self._shown_as(item["key"], self._fields(table, key))

    def _shown_as(self, wanted: Any, shown: Mapping[str, object]) -> bool:
        if not isinstance(wanted, Mapping):
            return str(wanted) == str(shown.get("", ""))
        return all(name in shown and str(shown[name]) == str(value) for name, value in wanted.items())


def pairs(rows: Rows) -> Iterator[tuple[Any, Any]]:
    if isinstance(rows, Columns):
        yield from zip(rows.keys, rows.values, strict=True)
    else:
        yield from rows.rows.items()


def restricted(delta: Delta, selection: Selection) -> Delta:
    """The part of a delta whose rows are selected."""
    keep = [
        (delta.table, change.key, change.after if change.after is not None else change.before) in selection
        for change in delta
    ]
    if isinstance(delta, DictDelta):
        kept = {change.key for change, wanted in zip(delta, keep, strict=True) if wanted}
        return DictDelta(
            delta.table,
            {key: row for key, row in delta.before.items() if key in kept},
            {key: row for key, row in delta.after.items() if key in kept},
            delta.origins,
        )
    return _restricted_columns(delta, np.array(keep, np.bool_))


def _restricted_columns(delta: ColumnDelta, keep: NDArray[np.bool_]) -> ColumnDelta:
    """`keep` is in the order in which the delta iterates: rows of `after`, then what is removed."""
    after, removed = keep[: len(delta.after)], keep[len(delta.after) :]
    changed = after[: delta.changed]
    before = np.concatenate([changed, removed])
    return ColumnDelta(
        delta.table,
        delta.before.take(np.flatnonzero(before)),
        delta.after.take(np.flatnonzero(after)),
        int(changed.sum()),
    )
