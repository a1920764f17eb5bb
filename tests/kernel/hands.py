"""Somebody else's hands and eyes in a namespace: iproute2, and waiting for a condition."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.kernel import netns

NETNS = Path("/run/netns")
PREFIX = f"pt-{os.getpid()}-"
DEADLINE_S = 5.0


def ip(arguments: str) -> str:
    """In the namespace of the calling thread."""
    result = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"ip {arguments}: {result.stderr}"
    return result.stdout


def ip_in(path: str, arguments: str) -> str:
    with netns.inside(path):
        return ip(arguments)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
