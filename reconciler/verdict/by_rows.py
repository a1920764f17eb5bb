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
    egress = by_host(world, question, egress=True)
    if one.flags & IpcacheFlag.LOCAL:
        egress = world.policy.judge(one, other.identity, egress=True, protocol=protocol, port=port)
    ingress = by_host(world, question, egress=False)
    if other.flags & IpcacheFlag.LOCAL:
        ingress = world.policy.judge(other, one.identity, egress=False, protocol=protocol, port=port)
    return Sides(egress, ingress)


def by_host(world: World, question: Question, *, egress: bool) -> Side | None:
    """What the host says as that end of a flow: it is open until a rule selects it. None: the end is not the host."""
    source, destination, protocol, port = question
    end, other = (source, destination) if egress else (destination, source)
    if world.ends[end].standing is not Standing.HOST:
        return None
    host = world.peers[end]
    if host.identity not in world.policy.subjects:
        return Side(Word.ALLOW)
    return world.policy.judge(host, world.peers[other].identity, egress=egress, protocol=protocol, port=port)
