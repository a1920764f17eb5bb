"""One flow with both its sides: who says what of it, and why."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.compile.contents import EGRESS, INGRESS
from reconciler.model.datapath import IpcacheFlag
from reconciler.model.labels import LabelSet
from reconciler.model.policy_test import DestinationPort
from reconciler.verdict.by_rows import sides
from reconciler.verdict.case import Question, Side
from reconciler.verdict.explanation import Asked, SideReason, explain
from reconciler.verdict.rows import Peer
from reconciler.verdict.world import World


@dataclass(frozen=True, slots=True)
class Who:
    """An end of a flow. `identity` is 0 where no host has allocated one; `note` is what else must be said of it."""

    name: str
    identity: int
    labels: LabelSet
    note: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """`egress` is None where the source is no workload, `ingress` where the destination is none.

    `commit` is '' where the policy is of none.
    """

    commit: str
    source: Who
    destination: Who
    port: DestinationPort
    verdict: str
    egress: SideReason | None
    ingress: SideReason | None


def trace(world: World, question: Question) -> Trace:
    judged = sides(world, question)
    source, destination = world.peers[question.source], world.peers[question.destination]
    return Trace(
        "",
        _who(world, question.source),
        _who(world, question.destination),
        DestinationPort(question.protocol, question.port),
        judged.verdict,
        _explained(world, _asked(source, destination, EGRESS, question), judged.egress),
        _explained(world, _asked(destination, source, INGRESS, question), judged.ingress),
    )


def _asked(subject: Peer, peer: Peer, direction: str, question: Question) -> Asked:
    audit = bool(subject.flags & IpcacheFlag.AUDIT)
    return Asked(subject.identity, peer.identity, direction, question.protocol, question.port, audit)


def _explained(world: World, asked: Asked, side: Side | None) -> SideReason | None:
    """None for an end that no rows are for: a host that no rule selects, and who is judged elsewhere."""
    if side is None or asked.subject not in world.judging.subjects:
        return None
    return explain(world.judging, asked, side)


def _who(world: World, end: str) -> Who:
    identity = world.peers[end].identity
    return Who(end, identity, world.judging.labels.get(identity, frozenset()))
