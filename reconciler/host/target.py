"""What a commit means for this host: what it is trued to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.compile.host import Desired
from reconciler.engine.rows import DictRows
from reconciler.kernel.cgroups import cgroup_mount
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

    @property
    def cgroups(self) -> frozenset[Path]:
        """Folders of the cgroups, below the root, whose sockets have programs here."""
        rows = self.desired.tables["cgroups"]
        named = {key.cgroup for key in rows.rows if key.cgroup} if isinstance(rows, DictRows) else set()
        return frozenset(cgroup_mount() / cgroup for cgroup in named) if named else frozenset()
