"""Expectations of a commit against what its policy says.

Only the workloads that expectations name are compiled, all of them in one world: with 1,000 policies and 50
expectations that takes about 30 ms after one policy changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.compile.cache import CompileCache
from reconciler.errors import Fault, PolicyTestFailed
from reconciler.model.policy_test import Expectation, PolicyTest
from reconciler.model.snapshot import Snapshot
from reconciler.verdict.case import CaseError
from reconciler.verdict.cluster_world import ClusterWorld, Flow
from reconciler.verdict.commit_world import cluster_world
from reconciler.verdict.parties import Known
from reconciler.verdict.trace import Trace
from reconciler.verdict.trace_text import to_text

TRACES = 3  # that an error tells in full


@dataclass(frozen=True, slots=True)
class Result:
    """`flows`: how many were judged. `failing` is the first flow with another verdict.

    `error`: why nothing could be judged. `notes` are about those whom the expectation names.
    """

    test: PolicyTest
    expectation: Expectation
    flows: int
    failing: Trace | None = None
    error: str = ""
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.failing is None and not self.error

    @property
    def fault(self) -> Fault:
        """What is wrong, of an expectation that does not hold."""
        origin, expected = self.expectation.origin, self.expectation.expect
        message = self.error
        if self.failing is not None:
            flow = f"{self.failing.source.name} to {self.failing.destination.name} on {self.failing.port}"
            message = f"{flow}: expected {expected}, is {self.failing.verdict}"
        return Fault(origin.path, origin.line, self.expectation.column, f"expectation {self.expectation}: {message}")


def results(snapshot: Snapshot, known: Known | None = None, cache: CompileCache | None = None) -> list[Result]:
    """One for each expectation, in their order. `known`: what a host has allocated for this very commit.

    `cache` remembers what was compiled for the commit before; it is for tests of one repository alone.

    Raises CompileError.
    """
    listed = [(test, one) for test in snapshot.policy_tests for one in test.expectations]
    if not listed:
        return []
    world = cluster_world(
        snapshot, [party for _, one in listed for party in (one.source, one.destination)], known, cache
    )
    return [_result(world, test, one) for test, one in listed]


def require(snapshot: Snapshot, known: Known | None = None, cache: CompileCache | None = None) -> int:
    """How many expectations hold, which is all of them. Raises PolicyTestFailed, CompileError."""
    found = results(snapshot, known, cache)
    failed = [one for one in found if not one.holds]
    if failed:
        raise PolicyTestFailed("\n".join(_told(failed)))
    return len(found)


def _told(failed: Sequence[Result]) -> Iterable[str]:
    for place, one in enumerate(failed):
        yield str(one.fault)
        if one.failing is not None and place < TRACES:
            yield from (f"  {line}".rstrip() for line in to_text(one.failing).splitlines())


def _result(world: ClusterWorld, test: PolicyTest, one: Expectation) -> Result:
    try:
        flows = world.flows(one.source, one.destination, one.port)
    except CaseError as error:
        return Result(test, one, 0, error=str(error))
    wrong = next((flow for flow in flows if world.judge(flow).verdict != one.expect), None)
    failing = world.trace(wrong) if wrong else None
    return Result(test, one, len(flows), failing, notes=_notes(world, flows))


def _notes(world: ClusterWorld, flows: Iterable[Flow]) -> tuple[str, ...]:
    ends = dict.fromkeys(end for flow in flows for end in flow.ends)
    return tuple(f"{world.who[end].name}: {world.who[end].note}" for end in ends if world.who[end].note)
