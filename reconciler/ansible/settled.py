"""`state: converged` of `plumb_reconcile`: whether the host's daemon agrees, once it has looked at the commit."""

from __future__ import annotations

import time
from typing import Any

from reconciler.ansible.hands import daemon
from reconciler.config import Config
from reconciler.errors import DaemonUnreachable, PlumbError

_PAUSE_S = 0.1
_PASSING = ("converging", "waiting")


def settled(config: Config, commit: str, wait_s: float) -> dict[str, Any]:
    """Raises PlumbError with what the daemon says if the host runs another commit, or is not as it should be."""
    client = daemon(config)
    if client is None:
        raise DaemonUnreachable(f"no daemon answers on {config.socket}")
    deadline = time.monotonic() + wait_s
    client.get("/v1/wait", commit=commit, timeout_s=wait_s)
    while (status := client.get("/v1/status"))["state"] in _PASSING and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    if status["commit"] != commit or status["last_error"] or status["state"] in _PASSING:
        why = status["last_error"] or f"it runs {status['commit'][:12] or 'no commit'}"
        raise PlumbError(f"{config.node} is {status['state']}, not converged to {commit[:12]}: {why}")
    return {"changed": False, "after": {"commit": commit}}
