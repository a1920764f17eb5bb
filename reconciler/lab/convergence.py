"""Waiting for a lab's daemons: until they answer, and until they have converged to a commit."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from reconciler.config import Config
from reconciler.daemon.client import Client
from reconciler.errors import ApplyError, DaemonUnreachable
from reconciler.lab.processes import end_of_log

START_TIMEOUT_S = 30.0
CONVERGE_TIMEOUT_S = 60
GOOD = ("applied", "unchanged", "held")
_PAUSE_S = 0.02


def wait_for_socket(config: Config, process: subprocess.Popen[bytes]) -> None:
    """Raises DaemonUnreachable with the end of its log when the daemon ends, or does not answer in time."""
    client, log = Client(config.socket), partial(end_of_log, config.run_directory)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not client.answers():
        if process.poll() is not None:
            raise DaemonUnreachable(f"the daemon of {config.node} ended with {process.returncode}:\n{log()}")
        if time.monotonic() > deadline:
            raise DaemonUnreachable(f"the daemon of {config.node} did not answer in time:\n{log()}")
        time.sleep(_PAUSE_S)


def wait_for_commit(nodes: Mapping[str, Config], commit: str) -> dict[str, Any]:
    """node -> what became of the commit there. Raises ApplyError, naming each node that is not converged to it."""
    results = {}
    for node, config in nodes.items():
        client = Client(config.socket)
        results[node] = client.get("/v1/wait", commit=commit, timeout_s=CONVERGE_TIMEOUT_S)
    bad = [
        f"{node}: {one['result']}: {one.get('error') or ''}"
        for node, one in results.items()
        if one["result"] not in GOOD
    ]
    if bad:
        raise ApplyError("\n".join(bad), remedy="correct the commit, then again: plumb lab up")
    return results
