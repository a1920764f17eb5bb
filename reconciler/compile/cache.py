"""What a host remembers from one compile to the next: only to be faster, never to decide differently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from reconciler.compile.contents import Contents
from reconciler.compile.ipcache import CacheRow, Table
from reconciler.compile.members import Members
from reconciler.compile.networks import Networks
from reconciler.compile.policy import PolicyMemory
from reconciler.compile.selectors import LabelIndex
from reconciler.compile.services import ServiceMemory
from reconciler.compile.subjects import RuleMatcher
from reconciler.compile.tables import AskedRow
from reconciler.engine.rows import DictRows

T = TypeVar("T")


class Remembered(Generic[T]):
    """The last result of a pure function, given again while its inputs are equal; equal objects compare at once."""

    def __init__(self) -> None:
        self._last: tuple[tuple[object, ...], T] | None = None

    def get(self, inputs: tuple[object, ...], compute: Callable[[], T]) -> T:
        """`inputs` is everything that `compute` depends on; nothing in it may be changed later."""
        if self._last is None or self._last[0] != inputs:
            self._last = (inputs, compute())
        return self._last[1]


@dataclass(slots=True)
class CompileCache:
    """One for each host and thread."""

    contents: Contents = field(default_factory=Contents)
    matcher: RuleMatcher = field(default_factory=RuleMatcher)
    index: LabelIndex = field(default_factory=LabelIndex)
    members: Remembered[Members] = field(default_factory=Remembered)
    member_rows: Remembered[list[CacheRow]] = field(default_factory=Remembered)
    networks: Remembered[Networks] = field(default_factory=Remembered)
    ipcache: Remembered[Table] = field(default_factory=Remembered)
    policy: PolicyMemory = field(default_factory=PolicyMemory)
    services: ServiceMemory = field(default_factory=ServiceMemory)
    devices: dict[str, Remembered[tuple[AskedRow, ...]]] = field(default_factory=dict)
    tables: Remembered[dict[str, DictRows]] = field(default_factory=Remembered)
