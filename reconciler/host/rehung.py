"""What hangs on a link that a commit moves: it goes with the old pair, and the plan, made before, cannot know.

A workload that gets another namespace or interface has its pair made anew, and so has one that gets another workload's.
Addresses, routes, attachments and so on are wanted as they were, so no plan names them, and they are gone once the link
is written. They are put back before the commit counts, as the first of its probes: if that fails, everything is taken
back, and what hung on the links of before is put back in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.engine.change import Change
from reconciler.engine.plan import Plan
from reconciler.engine.probes import Probe
from reconciler.model.network import Link

DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Rehung:
    """Holds once `compare` finds nothing that `repair` would have to write."""

    compare: Callable[[], Plan]
    repair: Callable[[Plan], None]
    name: str = "what hangs on moved links"
    deadline_s: float = DEADLINE_S

    def check(self) -> str | None:
        if left := self.compare():
            self.repair(left)
            left = self.compare()
        return f"rows still differ: {left.render()}" if left else None


def rehung(plan: Plan, compare: Callable[[], Plan], repair: Callable[[Plan], None]) -> Sequence[Probe]:
    """The probe, if the plan moves the workload's end of any link, or puts it where another one was."""
    return [Rehung(compare, repair)] if _moves(_links(plan)) else []


def _links(plan: Plan) -> Sequence[Change]:
    return [change for delta in plan.deltas if delta.table == "links" for change in delta]


def _moves(changes: Sequence[Change]) -> bool:
    left = {_place(change.before) for change in changes if _place(change.before) != _place(change.after)} - {None}
    come = [change for change in changes if _place(change.after) not in (None, _place(change.before))]
    return any(change.before is not None or _place(change.after) in left for change in come)


def _place(row: object) -> tuple[str, str] | None:
    """Where the workload's end is."""
    return (row.peer.netns, row.peer.name) if isinstance(row, Link) else None
