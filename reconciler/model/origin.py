"""Where a row comes from: the document that asked for it, at a commit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """`path` is relative to the policy repository, `line` and `column` count from 1, `commit` is the full hex name.

    Rows that no single document asked for (a node's sysctls, say) carry the document that implies them.
    """

    path: str
    line: int
    kind: str
    name: str
    commit: str
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line} ({self.kind} {self.name}) @ {self.commit[:12]}"
