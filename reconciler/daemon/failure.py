"""The commit that could not be applied, and when it is tried again: ever later, as a try may touch running workloads.

A newer commit does not wait, nor does somebody who asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.errors import ApplyError, Busy, KernelError, PlanStale, PlumbError, StoreError

# What may well succeed at another try, without a new commit.
PASSING = (ApplyError, KernelError, StoreError, PlanStale, Busy)
FIRST_S = 10.0
LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """`wait_s`: from the last try until the next, which is at `due_ns` (CLOCK_MONOTONIC).

    Both are None where only another commit helps.
    """

    commit: str
    error: PlumbError
    wait_s: float | None
    due_ns: int | None

    @property
    def result(self) -> str:
        return "refused" if self.due_ns is None else "failed"

    def is_worth_a_try(self, now_ns: int, at_once: bool = False) -> bool:
        return self.due_ns is not None and (at_once or now_ns >= self.due_ns)


def failed(commit: str, error: PlumbError, earlier: Failure | None, now_ns: int) -> Failure:
    """After another try that failed; `earlier` is what is known of tries before."""
    if not isinstance(error, PASSING):
        return Failure(commit, error, None, None)
    again = earlier is not None and earlier.commit == commit
    wait_s = min(2 * earlier.wait_s, LONGEST_S) if again and earlier and earlier.wait_s else FIRST_S
    return Failure(commit, error, wait_s, now_ns + round(wait_s * 1e9))
