"""What a commit means for this host: what it is trued to."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.compile.host import Desired
from reconciler.model.facts import Facts
from reconciler.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Target:
    """`desired` has the rows of every table, programs included."""

    snapshot: Snapshot
    facts: Facts
    desired: Desired

    @property
    def commit(self) -> str:
        return self.snapshot.commit

    @property
    def namespaces(self) -> frozenset[str]:
        """Paths of the namespaces of this node's workloads."""
        here = self.facts.node
        return frozenset(one.netns for one in self.snapshot.workloads.values() if one.node == here)
