"""What a host remembers from one compile to the next: only to be faster, never to decide differently."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.compile.contents import Contents
from reconciler.compile.ipcache import Records, Table
from reconciler.compile.members import Members
from reconciler.compile.networks import Networks
from reconciler.compile.policy import PolicyMemory
from reconciler.compile.prefilter import PrefilterMemory
from reconciler.compile.selectors import LabelIndex
from reconciler.compile.services import ServiceMemory
from reconciler.compile.subjects import RuleMatcher
from reconciler.compile.tables import AskedRow
from reconciler.engine.remembered import Remembered
from reconciler.engine.rows import DictRows


@dataclass(slots=True)
class CompileCache:
    """One for each host and thread."""

    contents: Contents = field(default_factory=Contents)
    matcher: RuleMatcher = field(default_factory=RuleMatcher)
    index: LabelIndex = field(default_factory=LabelIndex)
    members: Remembered[Members] = field(default_factory=Remembered)
    member_rows: Remembered[Records] = field(default_factory=Remembered)
    networks: Remembered[Networks] = field(default_factory=Remembered)
    ipcache: Remembered[Table] = field(default_factory=Remembered)
    policy: PolicyMemory = field(default_factory=PolicyMemory)
    services: ServiceMemory = field(default_factory=ServiceMemory)
    prefilter: PrefilterMemory = field(default_factory=PrefilterMemory)
    devices: dict[str, Remembered[tuple[AskedRow, ...]]] = field(default_factory=dict)
    tables: Remembered[dict[str, DictRows]] = field(default_factory=Remembered)
