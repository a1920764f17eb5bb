"""Every flow of the public data, traced: reasons and verdict agree, and the verdict is the one that was recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from reconciler.model.cluster import AllowLocalhost
from reconciler.verdict.by_rows import sides
from reconciler.verdict.case import Question, Settings, Sides
from reconciler.verdict.stream import Judge
from reconciler.verdict.trace import trace
from reconciler.verdict.world import World
from tests.unit.verdict.consistency import contradictions

from .recorded import DATA, FILES, MISSING, lines

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=MISSING)


class TracingEngine:
    """Judges from rows, and traces what it judges."""

    def __init__(self) -> None:
        self.traced = 0
        self.wrong: list[str] = []

    def judge(self, asked: Sequence[tuple[World, Sequence[Question]]]) -> list[list[Sides]]:
        return [self._judged(world, questions) for world, questions in asked]

    def _judged(self, world: World, questions: Sequence[Question]) -> list[Sides]:
        for question in questions:
            found = trace(world, question)
            self.traced += 1
            self.wrong += [f"{question}: {text}" for text in contradictions(found)]
            judged = sides(world, question)
            if found.verdict != judged.verdict:
                self.wrong.append(f"{question}: {found.verdict}, but {judged.verdict}")
        return [sides(world, question) for question in questions]

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("name", FILES)
def test_a_trace_explains_the_verdict_that_rows_give(name: str) -> None:
    engine = TracingEngine()
    judge = Judge(engine, Settings(allow_localhost=AllowLocalhost.POLICY), name)
    answers = judge.answers(json.dumps(line).encode() for line in lines(name))
    assert [answer for answer in answers if "error" in answer] == []
    assert engine.wrong[:5] == []
    assert engine.traced > 0
