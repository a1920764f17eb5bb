"""What the daemon takes when nothing happens: memory with 1,000 policies and 10,000 remote endpoints, and CPU time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.hosted import hosted

POLICIES, REMOTE = 1_000, 10_000
IDLE_S = 60.0  # two audits


def measure() -> Iterator[Figure]:
    with hosted(POLICIES, REMOTE) as host:
        assert host.daemon is not None
        process = Path(f"/proc/{host.daemon.pid}")
        before = cpu_s(process)
        time.sleep(IDLE_S)
        yield Figure("daemon.idle_cpu", (cpu_s(process) - before) / IDLE_S * 100, "% of a core")
        yield Figure("daemon.resident", kilobytes(process, "VmRSS") / 1024, "MB")
        yield Figure("daemon.resident_peak", kilobytes(process, "VmHWM") / 1024, "MB")


def cpu_s(process: Path) -> float:
    """User and system time of all its threads; proc(5), /proc/PID/stat."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kilobytes(process: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])
