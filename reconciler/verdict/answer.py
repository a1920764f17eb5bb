"""Answers as JSON: a verdict for each flow with the rules behind it, or filled tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.compile.contents import EGRESS, INGRESS
from reconciler.compile.cookies import RuleInfo
from reconciler.verdict.case import End, Question, Side, Sides, Word
from reconciler.verdict.lines import Flows, Tables, cells

_PASSES, _BLOCKED, _NO_PORT = ".", "X", "P"


def of_flows(form: Flows, sides: Sequence[Sides], rules: Mapping[int, RuleInfo], place: str) -> list[dict[str, Any]]:
    """In the order of the questions. `place`: where the rules stand (`cases.jsonl:7`).

    `audited` is there where a side would deny and is in audit mode: the names of such sides.
    """
    shown = [one._replace(egress=None) for one in sides] if form.ingress_only else sides
    return [_of_flow(one, rules, place) for one in shown]


def _of_flow(sides: Sides, rules: Mapping[int, RuleInfo], place: str) -> dict[str, Any]:
    asked = [(name, side) for name, side in ((EGRESS, sides.egress), (INGRESS, sides.ingress)) if side is not None]
    answer: dict[str, Any] = {
        "verdict": sides.verdict,
        EGRESS: sides.egress.word.value if sides.egress else None,
        INGRESS: sides.ingress.word.value if sides.ingress else None,
        "rules": [
            {"side": name, "rule": rules[side.cookie].reference, "field": rules[side.cookie].field, "at": place}
            for name, side in asked
            if side.cookie in rules and rules[side.cookie].origin.path
        ],
    }
    audited = [name for name, side in asked if side.audited]
    return answer | ({"audited": audited} if audited else {})


def of_tables(form: Tables, ends: Mapping[str, End], answers: Mapping[Question, Sides]) -> dict[str, Any]:
    """Tables as they were asked: cells that ask nothing stay, an end reaches itself."""
    filled = {
        name: {part: [list(row) for row in rows] for part, rows in table.parts.items()}
        for name, table in form.tables.items()
    }
    for name, row, column, question in cells(form, ends):
        for part, rows in filled[name].items():
            if rows[row][column] not in "P?":
                rows[row][column] = _NO_PORT if question is None else _mark(answers[question], part)
    for parts in filled.values():
        for rows in parts.values():
            for place in range(len(rows)):
                rows[place][place] = _PASSES if rows[place][place] not in "P?" else rows[place][place]
    return {
        name: {part: ["".join(row) for row in rows] for part, rows in parts.items()} for name, parts in filled.items()
    }


def _mark(sides: Sides, part: str) -> str:
    judged: tuple[Side | None, ...] = (
        {EGRESS: (sides.egress,), INGRESS: (sides.ingress,)}[part] if part != "combined" else tuple(sides)
    )
    return _BLOCKED if any(side is not None and side.word is Word.DENY for side in judged) else _PASSES
