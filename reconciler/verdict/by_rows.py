"""The engine that judges from compiled rows: needs no kernel and no privilege."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.model.datapath import IpcacheFlag
from reconciler.verdict.case import Question, Side, Sides, Standing, Word
from reconciler.verdict.world import World


class Engine(Protocol):
    def judge(self, asked: Sequence[tuple[World, Sequence[Question]]]) -> list[list[Sides]]:
        """The answers to each world's questions, in their order. May raise KernelError."""
        ...

    def close(self) -> None: ...


class RowsEngine:
    def judge(self, asked: Sequence[tuple[World, Sequence[Question]]]) -> list[list[Sides]]:
        return [[sides(world, question) for question in questions] for world, questions in asked]

    def close(self) -> None:
        """Nothing is held."""


def sides(world: World, question: Question) -> Sides:
    """As judge() in bpf/lib/judge.h, but both sides in any case."""
    source, destination, protocol, port = question
    one, other = world.peers[source], world.peers[destination]
    egress = unjudged(world, source)
    if one.flags & IpcacheFlag.LOCAL:
        egress = world.policy.judge(one, other.identity, egress=True, protocol=protocol, port=port)
    ingress = unjudged(world, destination)
    if other.flags & IpcacheFlag.LOCAL:
        ingress = world.policy.judge(other, one.identity, egress=False, protocol=protocol, port=port)
    return Sides(egress, ingress)


def unjudged(world: World, end: str) -> Side | None:
    """What the side of an end says that no rows are for."""
    return Side(Word.ALLOW) if world.ends[end].standing is Standing.HOST else None
