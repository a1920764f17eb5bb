"""Rows in the shape of a result, wherever they come from: live ones, desired ones, those that a plan touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reconciler.engine.rows import Rows
from reconciler.engine.table import Table
from reconciler.host.listing import Listing
from reconciler.host.target import Target


@dataclass(frozen=True, slots=True)
class _Held:
    rows: Rows

    def live(self) -> Rows:
        return self.rows


def listing(target: Target | None, rows: Mapping[str, Rows]) -> Listing:
    """Shows these rows as if they were there; `target` explains them."""
    return Listing(target, {name: cast(Table, _Held(one)) for name, one in rows.items()})


def shown(target: Target | None, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Each row with its table, key, row and origin, in the order of the tables."""
    explained = listing(target, rows)
    return [{"table": name, **row} for name in rows for row in explained.rows(name)]
