"""From the start of `git push` until the last of 1, 4 or 16 hosts on this machine enforces it: 20 pushes each.

One host is next to the repository, the others fetch from it once the store says so; each commit changes rows of every
host. When a host had written and verified them its journal says.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.bench.figures import Figure, median, percentile
from tests.e2e.daemon_host import allowing, policy
from tests.e2e.followers import Follower, Followers, followers

HOSTS = (1, 4, 16)
PUSHES = 20
FIRST_PORT = 20_000
SELDOM_S = 3600


def measure() -> Iterator[Figure]:
    for count in HOSTS:
        settings = {f"host{number}": {"poll_interval_s": SELDOM_S} for number in range(count)}
        with (
            tempfile.TemporaryDirectory(prefix="pt-bench-") as directory,
            followers(Path(directory), **settings) as made,
        ):
            pushes = [_push(made, FIRST_PORT + number) for number in range(PUSHES)]
        first, last, returned = zip(*pushes, strict=True)
        name = f"push_hosts.hosts_{count}"
        yield Figure(f"{name}.first.p50", median(first), "ms")
        yield Figure(f"{name}.last.p50", median(last), "ms")
        yield Figure(f"{name}.last.p99", percentile(last, 99), "ms")
        yield Figure(f"{name}.returned.p50", median(returned), "ms")


def _push(made: Followers, port: int) -> tuple[float, float, float]:
    """Milliseconds until the first host and until all hosts enforce the commit, and until `git push` ends."""
    subjects = made.hosts
    made.write(
        "bench.yaml", "".join(policy(f"p-{node}", node, ingress=[allowing("from", node, port)]) for node in subjects)
    )
    commit = made.commit()
    began = time.time()
    pushed = made.push()
    returned = time.time()
    if pushed.returncode:
        raise RuntimeError(f"git push: {pushed.stderr}")
    enforced = [_enforced(host, commit) for host in made.hosts.values()]
    return (min(enforced) - began) * 1000, (max(enforced) - began) * 1000, (returned - began) * 1000


def _enforced(host: Follower, commit: str) -> float:
    """Seconds since the epoch, by the clock that all of them share."""
    host.wait_for(commit)
    (record,) = host.client.get("/v1/history", limit=1)
    if (record["commit"], record["result"]) != (commit, "applied"):
        raise RuntimeError(f"{host.node}: {record}")
    return datetime.fromisoformat(record["time"]).timestamp() + record["duration_ms"] / 1000
