"""Probes: what must hold after a plan was written, or it is taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from reconciler.errors import ProbeFailed

Clock = Callable[[], float]  # seconds, monotonic
Pause = Callable[[float], None]  # waits so many seconds

_PAUSE_S = 0.01


class Probe(Protocol):
    """Something tried after every apply until it holds, at most `deadline_s` seconds after the rows were written."""

    @property
    def name(self) -> str: ...

    @property
    def deadline_s(self) -> float: ...

    def check(self) -> str | None:
        """None if it holds, else what is wrong. Each probe is checked at least once, whatever its deadline."""
        ...


def hold(probes: Sequence[Probe], clock: Clock, pause: Pause) -> None:
    """Return when every probe has held once; they take turns. Raises ProbeFailed naming the first that never did."""
    started = clock()
    waiting = list(probes)
    while waiting:
        waiting = [probe for probe in waiting if not _holds(probe, started, clock)]
        if waiting:
            pause(_PAUSE_S)


def _holds(probe: Probe, started: float, clock: Clock) -> bool:
    complaint = probe.check()
    if complaint is None:
        return True
    if clock() - started >= probe.deadline_s:
        raise ProbeFailed(f"probe {probe.name}: {complaint} ({probe.deadline_s:g} s)")
    return False
