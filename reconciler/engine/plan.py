"""A plan: everything that would change on this host, as one value that can be shown, stored, applied and taken back.

plan = diff(commit, base, desired, live, complete)      # desired, live: table name -> Rows
plan.counts, plan.changes(), plan.digest, plan.inverse()
plan.render(rows=True, color=False)
Plan.from_json(plan.to_json(), tables)                  # the same plan, or a UsageError
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.engine.change import Change, Counts, Delta
from reconciler.engine.diff import diff_rows
from reconciler.engine.digest import digest
from reconciler.engine.document import decode, encode
from reconciler.engine.render import Fields, fields_of, render_deltas
from reconciler.engine.rows import Rows
from reconciler.engine.table import Table
from reconciler.errors import UsageError

FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """`commit` is what the host becomes, `base` what it was when the plan was made, both as full hex names.

    `deltas` has one entry for each table that changes, never an empty one. Two plans are the same if their digests are.
    """

    commit: str
    base: str
    deltas: tuple[Delta, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.deltas)

    @property
    def counts(self) -> dict[str, Counts]:
        """table -> counts, of the tables that change."""
        return {delta.table: delta.counts for delta in self.deltas}

    @property
    def digest(self) -> str:
        """sha256 of the content, whatever the order of rows; computed at each call."""
        return digest(self.commit, self.base, self.deltas)

    def changes(self) -> Iterator[Change]:
        for delta in self.deltas:
            yield from delta

    def inverse(self) -> Plan:
        """What takes this plan back."""
        return Plan(self.base, self.commit, tuple(delta.inverse() for delta in self.deltas))

    def render(self, rows: bool = False, color: bool = False, fields: Fields = fields_of) -> str:
        """A line for each table that changes, and for each row if `rows`; '' if nothing changes.

        `fields(table, key or row)` gives the parts of it that are shown, by name; the name '' shows the value alone.
        """
        return render_deltas(self.deltas, rows, color, fields)

    def to_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "format": FORMAT,
            "commit": self.commit,
            "base": self.base,
            "digest": self.digest,
            "tables": [encode(delta) for delta in self.deltas],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_document(), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, tables: Mapping[str, Table]) -> Plan:
        """The plan that `to_json` wrote; `tables` tell the types of its rows.

        Raises UsageError when it was changed or cut short, is of another version, or does not fit this host's tables.
        """
        try:
            document = json.loads(text)
            version = document["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"this is not a whole plan: {error}") from error
        if version != FORMAT:
            raise UsageError(f"the plan has format {version}, this version reads format {FORMAT}")
        try:
            plan = cls(document["commit"], document["base"], tuple(decode(t, tables) for t in document["tables"]))
            intact = plan.digest == document["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this is not a whole plan: {error}") from error
        if not intact:
            raise UsageError("the plan was changed after it was made: its digest does not match its content")
        return plan


def diff(
    commit: str,
    base: str,
    desired: Mapping[str, Rows],
    live: Mapping[str, Rows],
    complete: bool | Mapping[str, bool],
) -> Plan:
    """What makes the live rows of every desired table (table name -> rows) the desired ones.

    Where `complete` is false or lacks the table nothing is removed. Raises KeyError for a table without live rows.
    """
    deltas = []
    for name, rows in desired.items():
        whole = complete if isinstance(complete, bool) else complete.get(name, False)
        if delta := diff_rows(name, rows, live[name], whole):
            deltas.append(delta)
    return Plan(commit, base, tuple(deltas))
