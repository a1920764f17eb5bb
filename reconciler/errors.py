"""Every error that Plumbline raises on purpose, with its exit code and its remedy.

PlumbError                     1   anything below
├── PolicyTestFailed           1   policy says something else of a flow than a PolicyTest expects
├── UsageError                 2   the command line was used wrongly
├── ManifestError              3   a manifest is wrong: one or more `Fault`s, each with file, line and column
├── RepositoryError            4   the policy repository, a commit or an object cannot be read
├── CompileError               5   a valid snapshot cannot become rows (exhausted pool, over a map's budget)
├── PlanStale                  6   the live rows are no longer those that the plan was made from
├── ApplyError                 7   a write failed; the previous state was restored
│   └── ProbeFailed            8   the state was written, its probes failed, the previous state was restored
├── KernelError                9   the kernel refused or cannot do what is needed
│   ├── FeatureMissing        10   this kernel lacks a feature that is needed
│   └── PermissionMissing     11   a capability is missing
├── Busy                      12   another daemon or command holds this host
├── DaemonUnreachable         13   no daemon answers on the socket
│   └── DaemonSilent          13   there is one, and it says nothing: it is stopped, or busy
└── StoreError                14   what hosts share cannot be read or written
    ├── LeaseEnded            14   a lease is over, and its keys are gone
    └── ChangesMissed         14   a watch has fallen behind what the store remembers
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a manifest: where, what, and what would be allowed.

    `line` and `column` count from 1; 0 means that the fault concerns the file as a whole.
    """

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        if not self.line:
            return f"{self.path}: {self.message}"
        return f"{self.path}:{self.line}:{self.column}: {self.message}"


class PlumbError(Exception):
    """An error with an exit code and, where there is one, the next step for whoever reads it."""

    exit_code = 1
    remedy = ""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        if remedy:
            self.remedy = remedy


class PolicyTestFailed(PlumbError):
    """The message is every expectation that fails, with its place, and traces."""

    remedy = "change the policy, or the PolicyTest if it expects the wrong thing"


class UsageError(PlumbError):
    exit_code = 2


class ManifestError(PlumbError):
    """One or more faults; the message is all of them, a line each, in file and line order."""

    exit_code = 3

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.path, fault.line, fault.column)))
        super().__init__("\n".join(map(str, self.faults)))


class RepositoryError(PlumbError):
    exit_code = 4


class CompileError(PlumbError):
    exit_code = 5


class PlanStale(PlumbError):
    exit_code = 6
    remedy = "make the plan again: plumb plan"


class ApplyError(PlumbError):
    exit_code = 7


class ProbeFailed(ApplyError):
    exit_code = 8


class KernelError(PlumbError):
    """`errno` is the kernel's own number for it, 0 where it is our conclusion."""

    exit_code = 9

    def __init__(self, message: str, *, remedy: str = "", errno: int = 0) -> None:
        super().__init__(message, remedy=remedy)
        self.errno = errno


class FeatureMissing(KernelError):
    exit_code = 10
    remedy = "see what this kernel offers: plumb features"


class PermissionMissing(KernelError):
    exit_code = 11
    remedy = "run as root, or give the process the capabilities of the systemd unit"


class Busy(PlumbError):
    exit_code = 12


class DaemonUnreachable(PlumbError):
    exit_code = 13
    remedy = "start it: plumb daemon"


class DaemonSilent(DaemonUnreachable):
    remedy = "restart it: systemctl restart plumb"


class StoreError(PlumbError):
    exit_code = 14


class LeaseEnded(StoreError):
    remedy = "take a new lease and write its keys again"


class ChangesMissed(StoreError):
    remedy = "read the range again, and watch from its revision"
