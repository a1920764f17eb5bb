"""Lines of questions in, lines of answers out, in the same order, as many at a time as there are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.errors import ManifestError, PlumbError
from reconciler.model.policy import PolicyRule
from reconciler.source import given, stamp
from reconciler.source.documents import MAX_DEPTH
from reconciler.verdict import answer, lines
from reconciler.verdict.by_rows import Engine
from reconciler.verdict.case import Case, CaseError, Question, Settings, Sides
from reconciler.verdict.lines import Flows, Tables
from reconciler.verdict.world import Numbers, World, compiled

_BLOCK = 1 << 20  # bytes read at once
_FIRST_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*("[ !#-\[\]-~]{0,1000}"|-?(?:0|[1-9][0-9]{0,18}))\s*,')
_REMEMBERED = 1000  # compiled cases


@dataclass(frozen=True, slots=True)
class _Asked:
    """A line that can be judged."""

    id: Any
    number: int
    world: World
    form: Flows | Tables
    questions: tuple[Question, ...]


def blocks(descriptor: int) -> Iterator[list[bytes]]:
    """Complete lines of a file or a pipe as they come."""
    rest = b""
    while block := os.read(descriptor, _BLOCK):
        *complete, rest = (rest + block).split(b"\n")
        if complete:
            yield complete
    if rest:
        yield [rest]


class Judge:
    """Remembers what it compiled, so the same policy between the same ends is compiled once."""

    def __init__(self, engine: Engine, settings: Settings, path: str) -> None:
        """`path`: what the input is called in answers."""
        self._engine = engine
        self._settings = settings
        self._path = path
        self._numbers = Numbers()
        self._known: dict[str, World] = {}
        self._count = 0

    def answers(self, listed: Iterable[bytes]) -> list[dict[str, Any]]:
        """One for each line. What is wrong with a line is its answer.

        Raises KernelError where the engine does.
        """
        read: list[_Asked | dict[str, Any]] = []
        for line in listed:
            self._count += 1
            read.append(self._read(line, self._count))
        asked = [one for one in read if isinstance(one, _Asked)]
        sides = iter(self._engine.judge([(one.world, one.questions) for one in asked]))
        return [self._answer(one, next(sides)) if isinstance(one, _Asked) else one for one in read]

    def _read(self, line: bytes, number: int) -> _Asked | dict[str, Any]:
        name: Any = None
        if not line.strip():
            return {"id": None, "error": f"line {number} is empty"}
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise CaseError("a line must be a mapping")
            name = value.get("id")
            world = self._world(value, number)
            form = lines.asked(value, world.ends)
            return _Asked(name, number, world, form, _questions(form, world))
        except json.JSONDecodeError as error:
            return {"id": None, "error": f"{self._path}:{number}:{error.colno}: no JSON: {error.msg}"}
        except ManifestError as error:
            return {"id": name, "error": "; ".join(fault.message for fault in error.faults)}
        except RecursionError:
            found = name if name is not None else _first_id(line)
            return {"id": found, "error": f"line {number} is nested deeper than {MAX_DEPTH} levels"}
        except (PlumbError, ValueError, TypeError, AttributeError) as error:
            return {"id": name, "error": str(error)}

    def _world(self, value: dict[str, Any], number: int) -> World:
        form, documents = lines.policies(value)
        ends = [value.get(key) for key in _ENDS]
        key = json.dumps(
            (form, documents, ends)
        )  # in the order of the line, which is that of a table without pod_order
        if key not in self._known:
            case = Case(lines.ends(value, self._settings), self._rules(form, documents, number), self._settings)
            self._known[key] = compiled(case, self._numbers)
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        return self._known[key]

    def _rules(self, form: str, documents: list[Any], number: int) -> tuple[PolicyRule, ...]:
        settings = stamp.Settings(self._settings.cluster, self._settings.ipblock_matches_pods)
        read = given.rules if form == "rules" else given.documents
        return read(documents, settings, self._path, number)

    def _answer(self, asked: _Asked, sides: list[Sides]) -> dict[str, Any]:
        if isinstance(asked.form, Tables):
            answers = dict(zip(asked.questions, sides, strict=True))
            return {"id": asked.id, "tables": answer.of_tables(asked.form, asked.world.ends, answers)}
        place = f"{self._path}:{asked.number}"
        return {"id": asked.id, "flows": answer.of_flows(asked.form, sides, asked.world.judging.rules, place)}


# What the ends of a line depend on.
_ENDS = ("pods", "endpoints", "namespaces", "named_ports_tcp", "from_labels", "to_labels", "dst_named_ports_tcp")


def _first_id(line: bytes) -> Any:
    """The id of a line that cannot be read as a whole; None where it is not the first thing in it, and short."""
    found = _FIRST_ID.match(line)
    return json.loads(found[1]) if found else None


def _questions(form: Flows | Tables, world: World) -> tuple[Question, ...]:
    if isinstance(form, Flows):
        return form.questions
    cells = (question for _, _, _, question in lines.cells(form, world.ends) if question is not None)
    return tuple(dict.fromkeys(cells))
