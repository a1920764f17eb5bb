"""When a commit that failed is tried again."""

from __future__ import annotations

from itertools import pairwise

from reconciler.daemon.failure import FIRST_S, LONGEST_S, Failure, failed
from reconciler.errors import ApplyError, CompileError

COMMIT, OTHER = "a" * 40, "b" * 40
SECOND_NS = 10**9


def _tries(number: int) -> list[Failure]:
    known: list[Failure] = []
    for _ in range(number):
        known.append(failed(COMMIT, ApplyError("full"), known[-1] if known else None, 0))
    return known


def test_each_try_waits_twice_as_long_as_the_one_before_and_never_longer_than_the_limit() -> None:
    waits = [failure.wait_s or 0.0 for failure in _tries(12)]
    assert waits[0] == FIRST_S
    assert all(later == min(2 * earlier, LONGEST_S) for earlier, later in pairwise(waits))
    assert waits[-1] == LONGEST_S


def test_a_failure_is_worth_a_try_when_its_time_has_come() -> None:
    (failure,) = _tries(1)
    assert not failure.is_worth_a_try(round(FIRST_S * SECOND_NS) - 1)
    assert failure.is_worth_a_try(round(FIRST_S * SECOND_NS))


def test_another_commit_begins_anew() -> None:
    assert failed(OTHER, ApplyError("full"), _tries(5)[-1], 0).wait_s == FIRST_S


def test_what_only_another_commit_can_mend_is_never_due() -> None:
    refused = failed(COMMIT, CompileError("no such node"), None, 0)
    assert refused.result == "refused"
    assert not refused.is_worth_a_try(10**18, at_once=True)
